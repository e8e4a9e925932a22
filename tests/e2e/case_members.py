#!/usr/bin/python3
"""Membership while it is used: 1 -> 3 nodes, transfer, demote, remove."""
# seconds: 25
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import boot_ns, check, equal, run_case, wait_for  # noqa: E402
from load import Load  # noqa: E402


class Steady(threading.Thread):
    """Load without a pause; remembers the longest time without a success."""

    def __init__(self, c):
        super().__init__(daemon=True)
        self.load = Load(c)
        self.stopping = False
        self.gap_ms = 0.0
        self.error = None

    def run(self):
        last = boot_ns()
        try:
            while not self.stopping:
                self.load.write(5)
                now = boot_ns()
                self.gap_ms = max(self.gap_ms, (now - last) / 1e6)
                last = now
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def finish(self):
        self.stopping = True
        self.join(30)
        check(self.error is None, f"the load failed: {self.error}")


def members(c):
    with c.wait_leader().connect() as w:
        return w.members()


def grow(c, number):
    node = c.add_node(number)
    node.joining = True
    node.start()
    c.cli("member", "add", node.member)
    equal(members(c)[number], "standby", f"role of node {number} after add")
    c.cli("member", "promote", number)
    equal(members(c)[number], "voter", f"role of node {number} after promote")
    return node


def main(t):
    c = t.cluster(1).start()
    steady = Steady(c)
    steady.start()
    # Down to no voter at all: refused.
    check(c.cli("member", "demote", 1, ok=False).returncode != 0, "the only voter could be demoted")
    check(c.cli("member", "remove", 1, ok=False).returncode != 0, "the only voter could be removed")
    grow(c, 2)
    grow(c, 3)
    grow(c, 4)
    for node in c.nodes.values():
        node.joining = False

    # Leadership goes where it is sent.
    for number in (2, 3, 1):
        c.cli("leader", "transfer", number)
        wait_for(f"node {number} to lead", 10, lambda: c.leader() is c.nodes[number])
    check(c.cli("leader", "transfer", 99, ok=False).returncode != 0, "leadership was given to nobody")

    # Demote and promote again; remove for good.
    c.cli("member", "demote", 4)
    equal(members(c)[4], "standby", "role of node 4 after demote")
    c.cli("member", "promote", 4)
    equal(members(c)[4], "voter", "role of node 4 promoted again")
    c.cli("member", "remove", 4)
    check(4 not in members(c), "node 4 is still a member")
    c.nodes.pop(4).process.end()

    # The leader itself: leadership goes first, whoever does it.
    leader = c.wait_leader()
    done = c.cli("member", "remove", leader.id, ok=False)
    if done.returncode == 0:
        check(leader.id not in members(c), f"node {leader.id} is still a member")
        print("removing the leader: transferred, then removed")
        c.nodes.pop(leader.id).process.end()
        node = grow(c, 5)
        node.joining = False
    else:
        check("transfer" in done.stderr + done.stdout,
              f"refused, but not told what to do: {done.stdout}{done.stderr}")
    steady.finish()
    print(f"{len(steady.load.tokens)} grants meanwhile, longest gap {steady.gap_ms:.0f} ms")
    c.wait_digests_equal()
    for node in c.nodes.values():
        steady.load.verify(node)

    # The cluster of three survives the loss of any node, and its members survive a restart.
    victim = c.wait_leader()
    victim.kill()
    c.wait_leader()
    steady.load.write(20)

    victim.start()
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
