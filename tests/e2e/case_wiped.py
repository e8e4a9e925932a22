#!/usr/bin/python3
"""A node that lost its data comes back empty under its old id: it has voted before, so it is
refused, with a clear message; `holdfast member replace` brings it back under a new id."""
# seconds: 12
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, run_case, wait_for  # noqa: E402
from load import Load  # noqa: E402
import wire  # noqa: E402


def refused(node):
    """What the node says about having been wiped."""
    lines = node.process.last_text().splitlines()
    return [x for x in lines if "level=error" in x and re.search("wiped or exchanged|new id", x)]


def main(t):
    c = t.cluster(3).start()
    load = Load(c)
    load.write(50)
    victim = c.wait_leader()
    victim.kill()
    c.wait_leader()
    load.write(20)
    shutil.rmtree(victim.data)
    victim.start()
    text = wait_for("a word about the wiped node", 15, lambda: refused(victim))
    print(text[-1][:400])
    others = [n for n in c.nodes.values() if n is not victim]

    # With it and one other the cluster would have a majority, of which one has forgotten: none.
    others[0].process.stop()
    for _ in range(20):
        s = victim.status(0.2)
        check(s is None or s["state"] != "leader", "the wiped node leads")
    try:
        with others[1].connect(1.0) as w:
            tokens = w.tokens(b"disk0", timeout=1.0)
            check(False, f"a read was answered ({tokens}) by one node and one that has forgotten")
    except (OSError, wire.Failure):
        pass  # No majority that remembers.
    others[0].process.cont()
    load.write(20)
    c.wait_digests_equal(nodes=others)

    if victim.alive():
        victim.kill()
    else:
        victim.process.expected = True
        code = victim.process.popen.returncode
        check(code in (3, 4), f"the wiped node ended with {code}")
    new = c.add_node(4)
    new.joining = True
    new.start()
    c.cli("member", "replace", victim.id, new.member,
          cluster=",".join(n.client_address for n in others))
    c.nodes.pop(victim.id)
    load.write(20)
    c.wait_digests_equal()
    for node in c.nodes.values():
        load.verify(node)


if __name__ == "__main__":
    run_case(main)
