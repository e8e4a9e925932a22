#!/usr/bin/python3
"""Each grant has one audit line among the nodes together: 1 000 acquires while a leader is killed, one is
paused and one hands over; after a restart of all."""
# seconds: 30
# sanitized: no
import concurrent.futures
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from audit import Audit, told_once  # noqa: E402
from cluster import Failed, check, equal, run_case, wait_for  # noqa: E402
from gateway import Gateway  # noqa: E402


def thousand(c, gateways, disturb):
    """1 000 acquires of 1 000 locks by 8 clients, who ask again until they have it."""
    tokens = {}

    def take(i):
        g = gateways[i % len(gateways)]
        for _ in range(200):
            a = g.acquire(f"many/{i}", "me", ttl=600)
            if a.status == 200:
                tokens[i] = a.json["token"]
                return
            check(a.status == 503, f"{a}")
            time.sleep(0.05)
        raise Failed(f"many/{i} can't be had")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        work = [pool.submit(take, i) for i in range(1000)]
        disturb(lambda: len(tokens))
        for w in work:
            w.result()
    equal(len(set(tokens.values())), 1000, "tokens of 1 000 acquires")
    return set(tokens.values())


def main(t):
    audit = Audit(t)
    c = t.cluster(3)

    def options(node):
        return ("--audit", audit.path(node.id), "--snapshot-log-entries", "300")
    for node in c.nodes.values():
        node.start(options=options(node))
    c.wait_leader()
    gateways = [Gateway(c, str(i)).wait_ready() for i in (1, 2)]
    told_once(c, audit, "nothing yet")
    for i in range(20):
        equal(gateways[0].acquire(f"rest/{i}", "me").status, 200, "acquire")
        equal(gateways[0].acquire(f"rest/{i}", "me").status, 200, "again: a renewal")
    equal(len(told_once(c, audit, "at rest")), 20, "20 acquires")

    def disturb(done):
        wait_for("150", 60, lambda: done() >= 150)
        node = c.wait_leader()
        node.kill()
        wait_for("350", 60, lambda: done() >= 350)
        node.start(options=options(node))
        wait_for("500", 60, lambda: done() >= 500)
        node.wait_ready()
        paused = c.wait_leader()
        paused.process.stop()  # Deposed without its knowledge, with entries of its own under way.
        wait_for("700", 60, lambda: done() >= 700)
        paused.process.cont()
        wait_for("850", 60, lambda: done() >= 850)
        c.cli("leader", "transfer")
    tokens = thousand(c, gateways, disturb)
    got = told_once(c, audit, "over three changes of leaders")
    check(tokens <= set(got), "a token that a client has is not told of")
    check(len({a["node"] for a in audit.nodes() if a["event"] == b"grant"}) >= 2, "one node told all")
    # All at once: what was told is not told again.
    for node in c.nodes.values():
        node.kill()
    for node in c.nodes.values():
        node.start(options=options(node))
    c.wait_leader()
    for g in gateways:
        g.wait_ready()
    equal(gateways[1].acquire("behind", "me").status, 200, "acquire")
    told_once(c, audit, "after a restart of all")
    for g in gateways:
        equal(g.process.end(), 0, "a clean end")
    for node in c.nodes.values():
        node.process.end()
    told_once_offline(audit, len(got) + 1)


def told_once_offline(audit, n):
    got = [int(a["token"]) for a in audit.nodes() if a["event"] == b"grant"]
    equal(sorted(got), list(range(1, n + 1)), "at the end")


if __name__ == "__main__":
    run_case(main)
