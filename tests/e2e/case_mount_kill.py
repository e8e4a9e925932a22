#!/usr/bin/python3
"""kill -9 of a mount's daemon: its leases end after their ttl and not before, and the mount point
can be mounted again at once.  SIGTERM: a clean end, however often it comes."""
# seconds: 12
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import boot_ns, check, equal, run_case  # noqa: E402

TTL_MS = 4000


def main(t):
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options=f"ttl={TTL_MS}ms,session_ttl=2s,timeout=3s")
    b = c.mount("b", options=f"ttl={TTL_MS}ms,timeout=3s")
    leases = {}
    for i in range(8):
        began = boot_ns()
        fd = a.acquire(f"k{i}")
        leases[f"k{i}"] = (began, boot_ns(), a.token(f"k{i}"))
        os.close(fd)
        time.sleep(0.05)
    a.kill()
    a.start()  # Over the dead one.
    for name, (_, _, token) in leases.items():
        check(a.try_acquire(name) is None, f"{name} could be acquired while held by a dead mount")
        equal(a.token(name), token, f"token of {name} after the mount's crash")
    check(sorted(os.listdir(a.dir)) == sorted(leases), f"ls: {os.listdir(a.dir)}")
    errors = []
    while leases:
        for name in list(leases):
            asked = boot_ns()
            fd = b.try_acquire(name)
            free = boot_ns()
            if fd is not None:
                began, acquired, token = leases.pop(name)
                errors.append((free - began) / 1e6 - TTL_MS)
                check(errors[-1] >= 0, f"{name} was granted anew {-errors[-1]:.1f} ms early")
                check(b.token(name) > token, f"{name}: the new token is not above the old one")
                os.write(fd, b"release")
                os.close(fd)
            else:
                late = (asked - leases[name][1]) / 1e6 - TTL_MS
                check(late < 20000, f"{name} is held {late:.0f} ms after its ttl")
        time.sleep(0.005)
    errors.sort()
    for _ in range(10):
        b.process.expected = True
        for _ in range(2000):
            if not b.process.alive():
                break
            b.process.signal(signal.SIGTERM)
        equal(b.process.wait(20), 0, "the exit status after many SIGTERM")
        b.start()
    print(f"granted anew after ttl + {errors[0]:.1f} .. {errors[-1]:.1f} ms")


if __name__ == "__main__":
    run_case(main)
