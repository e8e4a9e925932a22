#!/usr/bin/python3
"""A write or a sync that fails, at a follower and at the leader: the node says which file and
ends with exit code 4; the others go on; started again on a good disk it is as good as new."""
# seconds: 25
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from load import Load  # noqa: E402


def prepare(t, c, node, call):
    """Run the node with the library that will fail once the trigger file exists."""
    trigger = os.path.join(t.directory, f"fail-{node.id}-{call}")
    node.process.end()
    node.start(env={"LD_PRELOAD": t.program("failio.so"), "FAILIO_DIR": node.data,
                    "FAILIO_CALL": call, "FAILIO_AFTER": "0", "FAILIO_FILE": trigger,
                    "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") +
                    ":verify_asan_link_order=0"})
    node.wait_ready()
    c.wait_leader()
    return trigger


def fail(c, load, node, call, trigger):
    with open(trigger, "w"):
        pass
    wait_for("the failure", 15, lambda: (load.write(5), not node.alive())[1])
    equal(node.process.wait(5), 4, f"exit code of node {node.id} after a failing {call}")
    text = node.process.last_text()
    check(node.data in text, f"the message names no file in {node.data}: {text[-800:]}")
    load.write(10)
    node.start()
    node.wait_ready()
    c.wait_digests_equal()


def main(t):
    c = t.cluster(3).start()
    load = Load(c)
    load.write(20)
    for call in ("sync", "write"):
        follower = c.followers()[0]
        fail(c, load, follower, call, prepare(t, c, follower, call))
        # The leader: restart a node with the library, and make it lead.
        node = c.followers()[-1]
        trigger = prepare(t, c, node, call)
        for _ in range(30):
            leader = c.wait_leader()
            if leader is node:
                break
            c.cli("leader", "transfer", node.id, ok=False)
        check(c.wait_leader() is node, f"node {node.id} could not be made leader")
        fail(c, load, node, call, trigger)
    for node in c.nodes.values():
        load.verify(node)


if __name__ == "__main__":
    run_case(main)
