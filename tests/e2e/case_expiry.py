#!/usr/bin/python3
"""A lease ends when its ttl is over and not before, seen from another mount."""
# seconds: 14
import errno
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import boot_ns, check, equal, expect_errno, run_case  # noqa: E402

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

    successor(a, b)


def successor(a, b):
    """The old holder's renew and rm fail while a new holder (another process) keeps the lock."""
    fd = a.acquire("job")
    while held(b, "job"):
        time.sleep(0.01)
    code = (f"import os, sys; os.open({b.path('job')!r}, os.O_CREAT | os.O_EXCL); print(1, flush=True); "
            "sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as new:
        equal(new.stdout.readline().strip(), b"1", "the new holder's acquire")
        token = b.token("job")
        refused = (errno.EPERM, errno.ESTALE)
        expect_errno(errno.ESTALE, lambda: os.write(fd, b"renew"), "renewal of an ended lease")
        expect_errno(errno.ESTALE, lambda: os.read(fd, 100), "read of an ended lease")
        expect_errno(errno.ESTALE, lambda: os.write(fd, b"release"), "release of an ended lease")
        for m in (a, b):
            expect_errno(refused, lambda: os.unlink(m.path("job")), f"unlink on {m.name}")
            expect_errno(refused, lambda: os.utime(m.path("job")), f"touch on {m.name}")
        equal(b.token("job"), token, "token of the new holder")
        new.stdin.close()
        equal(new.wait(10), 0, "the new holder's exit")
    os.close(fd)


if __name__ == "__main__":
    run_case(main)
