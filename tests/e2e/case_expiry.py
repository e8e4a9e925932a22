#!/usr/bin/python3
"""A lease ends when its ttl is over and not before, seen from another mount."""
# seconds: 14
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import boot_ns, check, expect_errno, run_case  # noqa: E402
import errno  # noqa: E402

TTL_MS = 2000
N = 16
LATE_MS_MAX = 1000  # On a busy machine; what is usual is printed.


def held(mount, name):
    try:
        os.stat(mount.path(name))
        return True
    except FileNotFoundError:
        return False


def watch(mount, name, began_ns, acquired_ns, ttl_ms, out):
    """Poll until it is free.  Early: it must have been free before began + ttl."""
    last_held = boot_ns()
    while True:
        asked = boot_ns()
        if not held(mount, name):
            break
        last_held = asked
        time.sleep(0.002)
    free = boot_ns()
    out.append((name, (free - began_ns) / 1e6 - ttl_ms, (last_held - acquired_ns) / 1e6 - ttl_ms))


def measure(holder, watcher, ttl_ms, extend=None):
    out = []
    threads = []
    for i in range(N):
        name = f"expiry{i}"
        began = boot_ns()
        fd = holder.acquire(name)
        if extend:
            time.sleep(0.05)
            began = boot_ns()
            extend(name, fd)
        acquired = boot_ns()
        os.close(fd)  # A lease outlives its descriptor.
        threads.append(threading.Thread(target=watch, daemon=True,
                                        args=(watcher, name, began, acquired, ttl_ms, out)))
        threads[-1].start()
        time.sleep(0.03)
    for t in threads:
        t.join(ttl_ms / 1000 + 10)
    check(len(out) == N, f"only {len(out)} of {N} leases ended")
    return out


def judge(what, out):
    early = min(out, key=lambda item: item[1])
    errors = sorted(item[1] for item in out)
    print(f"{what}: ended after ttl + {errors[0]:.1f} .. {errors[len(errors) // 2]:.1f} (median) .. "
          f"{errors[-1]:.1f} ms")
    check(early[1] >= 0, f"{what}: {early[0]} ended {-early[1]:.1f} ms early")
    late = max(out, key=lambda item: item[2])
    check(late[2] < LATE_MS_MAX, f"{what}: {late[0]} was still held {late[2]:.0f} ms after its ttl")


def main(t):
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options=f"ttl={TTL_MS}ms,timeout=3s")
    b = c.mount("b", options=f"ttl={TTL_MS}ms,timeout=3s")
    judge("acquired", measure(a, b, TTL_MS))
    judge("renewed by write", measure(a, b, 1200, lambda _, fd: os.write(fd, b"renew 1200ms")))
    judge("renewed by touch", measure(a, b, TTL_MS, lambda name, _: os.utime(a.path(name))))

    # The old script's renew and rm fail while a new holder keeps it.
    fd = a.acquire("job")
    while held(b, "job"):
        time.sleep(0.01)
    fd2 = b.acquire("job")
    expect_errno(errno.ESTALE, lambda: os.write(fd, b"renew"), "renewal of a lease that has ended")
    expect_errno((errno.EPERM, errno.ESTALE), lambda: os.unlink(a.path("job")),
                 "unlink by the holder before")
    expect_errno((errno.EPERM, errno.ESTALE), lambda: os.utime(a.path("job")),
                 "touch by the holder before")
    os.write(fd2, b"renew")
    os.unlink(b.path("job"))
    os.close(fd)
    os.close(fd2)


if __name__ == "__main__":
    run_case(main)
