#!/usr/bin/python3
"""A cluster whose data is thrown away and made anew under the same addresses: mounts that outlived
the old one must not take the new one's sessions and results for their own."""
# seconds: 8
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, run_case  # noqa: E402

ROUNDS = 40


def session_ids(mount):
    return re.findall(r'event="opened" id=(\d+)', mount.process.text())


def main(t):
    t.need_fuse()
    c = t.cluster(1).start()
    b = c.mount("b", options="ttl=20s,session_ttl=60s,timeout=5s")  # The first session.
    a = c.mount("a", options="ttl=20s,session_ttl=2s,timeout=5s")
    os.close(b.acquire("old"))
    b.process.stop()  # It sleeps while the world changes.
    node = c.nodes[1]
    node.kill()
    shutil.rmtree(node.data)
    node.start()
    node.wait_ready()
    os.close(a.acquire("new"))  # a's session is the first one of the new cluster.
    new = session_ids(a)[-1]
    check(new not in session_ids(b), f"a's new session has the id that b's old one had: {new}")
    b.process.cont()
    for i in range(ROUNDS):
        got = []
        for m in (a, b):
            fd = m.try_acquire(f"round{i}")
            if fd is not None:
                os.close(fd)
                got.append(m.name)
        check(len(got) == 1, f"round {i}: {got} acquired the same lock")
    print(f"{ROUNDS} locks of the new cluster had one holder each")


if __name__ == "__main__":
    run_case(main)
