#!/usr/bin/python3
"""All nodes down and up again: every lease is kept, and none ends early, for cluster time stands
still while there is no leader."""
# seconds: 20
# sanitized: no
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import boot_ns, check, equal, run_case, wait_for  # noqa: E402

TTL_MS = 4000
DOWN_S = 2.5


def read_when_up(mount, name):
    def attempt():
        try:
            return (mount.token(name),)
        except TimeoutError:
            return None
    return wait_for(f"an answer about {name}", 15, attempt)[0]


def restart(c, number):
    for node in c.nodes.values():
        node.process.expected = True
        node.process.signal(number)
    for node in c.nodes.values():
        code = node.process.wait(15)
        if number == signal.SIGTERM:
            equal(code, 0, f"exit code of node {node.id} after SIGTERM")
    time.sleep(DOWN_S)
    for node in c.nodes.values():
        node.start()
    c.wait_leader()


def one_round(c, a, b, number, word):
    leases = {}
    for i in range(6):
        name = f"{word}{i}"
        began = boot_ns()
        os.close(a.acquire(name))
        leases[name] = (began, a.token(name))
    restart(c, number)
    for name, (_, token) in leases.items():
        equal(read_when_up(b, name), token, f"token of {name} after the restart")
    errors = []
    while leases:
        for name, (began, _) in list(leases.items()):
            if b.token(name) is None:
                after_ms = (boot_ns() - began) / 1e6
                errors.append(after_ms - TTL_MS - DOWN_S * 1000)
                check(errors[-1] >= 0,
                      f"{name} ended {after_ms:.0f} ms after its grant, of which the cluster was "
                      f"down for {DOWN_S * 1000:.0f}: early by {-errors[-1]:.0f} ms")
                del leases[name]
            else:
                check(boot_ns() - began < (TTL_MS + DOWN_S * 1000 + 8000) * 1e6,
                      f"{name} did not end")
        time.sleep(0.005)
    print(f"{word}: leases ended {min(errors):.0f} .. {max(errors):.0f} ms after ttl + time down")


def main(t):
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options=f"ttl={TTL_MS}ms,timeout=3s")
    b = c.mount("b", options=f"ttl={TTL_MS}ms,timeout=3s")
    os.mkdir(a.path("dir"), 0o750)
    one_round(c, a, b, signal.SIGKILL, "kill")
    one_round(c, a, b, signal.SIGTERM, "term")
    equal(os.stat(b.path("dir")).st_mode & 0o7777, 0o750, "mode of a directory after two restarts")
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
