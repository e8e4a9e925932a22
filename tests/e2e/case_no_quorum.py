#!/usr/bin/python3
"""No majority: everything on the mount ends with ETIMEDOUT after timeout=, or at once by a signal;
when the nodes are back, all works again, and what was unlocked meanwhile is free."""
# seconds: 15
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, expect_errno, run_case, wait_for  # noqa: E402

TIMEOUT_S = 1.5


def timed_out(what, function):
    began = time.monotonic()
    expect_errno(errno.ETIMEDOUT, function, what)
    took = time.monotonic() - began
    check(TIMEOUT_S * 0.8 <= took <= TIMEOUT_S * 2 + 1.5, f"{what}: ETIMEDOUT after {took:.2f} s")


def interrupted(what, code):
    """A child that waits for an answer must die of SIGKILL at once."""
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    time.sleep(0.6)
    check(child.poll() is None, f"{what}: ended before it was killed")
    child.send_signal(signal.SIGKILL)
    began = time.monotonic()
    try:
        child.wait(3)
    except subprocess.TimeoutExpired:
        check(False, f"{what}: still there 3 s after SIGKILL")
    return time.monotonic() - began


def main(t):
    t.need_fuse()
    c = t.cluster(3).start()
    m = c.mount("a", options=f"ttl=60s,timeout={int(TIMEOUT_S * 1000)}ms,session_ttl=60s")
    fd = m.acquire("held")
    token = m.token("held")
    stopped = c.followers() if c.wait_leader() else []
    for node in stopped:
        node.process.stop()
    time.sleep(0.5)
    timed_out("open(O_EXCL)", lambda: m.acquire("new"))
    timed_out("stat", lambda: os.stat(m.path("held")))
    timed_out("ls", lambda: os.listdir(m.dir))
    timed_out("open and read", lambda: m.read("held"))
    timed_out("renew", lambda: os.write(fd, b"renew"))
    timed_out("unlink", lambda: os.unlink(m.path("held")))
    for what, code in (("open", f"import os; os.open({m.path('x')!r}, os.O_CREAT|os.O_EXCL)"),
                       ("stat", f"import os; os.stat({m.path('y')!r})"),
                       ("ls", f"import os; os.listdir({m.dir!r})")):
        took = interrupted(what, code)
        check(took < 10, f"{what}: ended {took:.2f} s after SIGKILL")
    for node in stopped:
        node.process.cont()
    c.wait_leader()

    def works():
        try:
            os.close(m.acquire("after"))
            return True
        except TimeoutError:
            return False

    wait_for("the mount to work again", 10, works)
    # The unlink's outcome was unknown: done meanwhile, or never.
    check(m.token("held") in (None, token), "a lock changed its token while there was no quorum")
    # What timed out was not granted, or was given back.
    wait_for("the acquire that timed out to be given back", 10, lambda: m.token("new") is None)
    os.unlink(m.path("after"))
    os.close(fd)
    c.wait_digests_equal()
    equal(m.process.alive(), True, "the mount's daemon lives")
    unlock_is_not_forgotten(c, m)


def unlock_is_not_forgotten(c, m):
    """The nodes die, so that nothing can even be sent: an unlock that times out is done later."""
    other = c.mount("b", options="ttl=60s,timeout=5s,session_ttl=60s")
    flocked = os.open(m.path("flocked"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(flocked, fcntl.LOCK_EX)
    ranged = os.open(m.path("ranged"), os.O_CREAT | os.O_RDWR)
    fcntl.lockf(ranged, fcntl.LOCK_EX)
    killed = [n for number, n in c.nodes.items() if number != 1]
    for node in killed:
        node.kill()
    time.sleep(1)
    timed_out("flock(LOCK_UN)", lambda: fcntl.flock(flocked, fcntl.LOCK_UN))
    timed_out("F_UNLCK", lambda: fcntl.lockf(ranged, fcntl.LOCK_UN))
    for node in killed:
        node.start()
    c.wait_leader()
    for name, lock in (("flocked", fcntl.flock), ("ranged", fcntl.lockf)):
        fd = os.open(other.path(name), os.O_CREAT | os.O_RDWR)

        def free(fd=fd, lock=lock):
            try:
                lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError as e:
                check(e.errno in (errno.EAGAIN, errno.ETIMEDOUT), f"{name}: {e}")
                return False

        wait_for(f"{name} to be free, though its file is open", 10, free)
        os.close(fd)
    os.close(flocked)
    os.close(ranged)


if __name__ == "__main__":
    run_case(main)
