#!/usr/bin/python3
"""A mount that can't reach its cluster says so by poll: first jeopardy, then the loss, before others
are granted what it held."""
# seconds: 60
# sanitized: no
import errno
import fcntl
import os
import select
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from case_watch import lock, poll_now, settle, wait_poll  # noqa: E402
from cluster import check, equal, expect_errno, run_case, wait_for  # noqa: E402
from proxy import Relay  # noqa: E402


def take_turn(path, granted):
    """Wait for the lock, and note when it was granted."""
    fd = lock(path, fcntl.LOCK_EX)
    granted.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    os.close(fd)


def works(m):
    try:
        os.close(m.acquire("works"))
        os.unlink(m.path("works"))
        return True
    except OSError:
        return False


def main(t):
    t.need_root()
    t.need_fuse()
    relay = Relay(["cut-off", "well-off"])
    c = t.cluster(3)
    for node in c.nodes.values():
        behind = t.free_port("127.0.0.1")
        relay.listen(node.client_port, behind)
        node.start(options=("--listen", f"{node.raft_address},127.0.0.1:{behind}"))
    c.wait_leader()
    a = c.mount("cut", options="ttl=2s,session_ttl=2s,timeout=20s,host=cut-off")
    b = c.mount("well", options="ttl=2s,session_ttl=2s,timeout=20s,host=well-off")
    for kind in ("flock", "lease"):
        for outcome in ("back in time", "lost"):
            name = f"{kind}-{outcome[0]}"
            fd = lock(a.path(name), fcntl.LOCK_EX) if kind == "flock" else a.acquire(name)
            if kind == "lease":
                os.write(fd, b"keep\n")
            other = os.open(a.path("unheld"), os.O_RDONLY | os.O_CREAT)
            settle(fd)
            settle(other)
            granted = []
            waiter = threading.Thread(target=take_turn, args=(b.path(name), granted))
            waiter.start()
            wait_poll(fd, select.POLLIN)  # Somebody waits.
            relay.cut("cut-off")
            wait_poll(fd, select.POLLPRI, mask=select.POLLPRI)
            if outcome == "lost":
                wait_poll(fd, select.POLLERR | select.POLLHUP, mask=0)
                told = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                waiter.join(30)
                check(granted and granted[0] > told, f"{name}: told at {told}, the other granted at {granted}")
            # What holds nothing is in no danger.
            check(poll_now(other, select.POLLPRI | select.POLLIN) == 0, "a descriptor without a hold")
            relay.heal("cut-off")
            if outcome == "lost":
                wait_poll(fd, select.POLLERR | select.POLLHUP, mask=0)
                expect_errno(errno.ESTALE, lambda f=fd: os.pread(f, 10, 0), "read of what was lost")
            else:
                wait_for("the jeopardy to end", 15, lambda f=fd: poll_now(f, select.POLLPRI) == 0)
                check(poll_now(fd, 0) == 0, "lost though it came back in time")
                os.pread(fd, 10, 0)
                if kind == "lease":
                    os.unlink(a.path(name))
            os.close(fd)
            os.close(other)
            waiter.join(30)
            check(granted, f"{name}: the waiter was not granted")
            wait_for("the mount to work again", 20, lambda m=a: works(m))
    for m in (a, b):
        equal(m.unmount(), 0, f"exit of mount {m.name}")


if __name__ == "__main__":
    run_case(main)
