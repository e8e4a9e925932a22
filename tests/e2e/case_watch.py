#!/usr/bin/python3
"""poll and inotify hear of what another mount does: who waits is woken, nobody has to look."""
# seconds: 60
import contextlib
import fcntl
import os
import select
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import inotify  # noqa: E402
from cluster import check, equal, run_case, wait_for  # noqa: E402
from inotify import CREATE, DELETE, DELETE_SELF, MOVED_FROM, MOVED_TO  # noqa: E402

DIRECTORY = CREATE | DELETE | MOVED_FROM | MOVED_TO


def wait_poll(fd, wanted, seconds=15, mask=select.POLLIN | select.POLLPRI):
    p = select.poll()
    p.register(fd, mask)
    got = dict(p.poll(seconds * 1000)).get(fd, 0)
    check(got == wanted, f"poll says {got:#x}, not {wanted:#x}")


def settle(fd):
    """A first poll: from now on the mount watches."""
    wait_poll(fd, 0, 0.3)


@contextlib.contextmanager
def child(function):
    """A process that runs function() and sleeps until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            signal.pause()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def lock(path, mode):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, mode)
    return fd


def poll_across(a, b):
    holder = a.acquire("p")
    fd = os.open(b.path("p"), os.O_RDONLY)
    settle(fd)
    os.unlink(a.path("p"))
    wait_poll(fd, select.POLLIN)
    equal(os.pread(fd, 100, 0), b"", "a free lock's text")
    wait_poll(fd, 0, 0.1)
    os.close(holder)
    holder = a.acquire("p")
    wait_poll(fd, select.POLLIN)
    os.unlink(a.path("p"))
    os.close(holder)
    os.close(fd)
    # Who holds is told that somebody there waits; and when the hold is lost.
    fd = lock(b.path("q"), fcntl.LOCK_EX)
    settle(fd)
    with child(lambda: lock(a.path("q"), fcntl.LOCK_EX)):
        wait_poll(fd, select.POLLIN)
    wait_for("the waiter to go", 10, lambda: poll_now(fd) == 0)
    os.close(fd)
    # An edge each for epoll, unread.
    fd = os.open(b.path("e"), os.O_RDONLY | os.O_CREAT)
    ep = select.epoll()
    ep.register(fd, select.EPOLLIN | select.EPOLLET)
    equal(ep.poll(0.3), [], "before anything happened")
    for _ in range(3):
        holder = a.acquire("e")
        equal(ep.poll(15), [(fd, select.EPOLLIN)], "a grant")
        os.unlink(a.path("e"))
        equal(ep.poll(15), [(fd, select.EPOLLIN)], "a release")
        os.close(holder)
    ep.close()
    os.close(fd)


def poll_now(fd, mask=select.POLLIN):
    p = select.poll()
    p.register(fd, mask)
    return dict(p.poll(0)).get(fd, 0)


def killed_mount(cluster, a):
    """The other mount is killed: its session's lock ends, and who polls or watches hears of it."""
    b = cluster.mount("killed", options="ttl=2s,session_ttl=1500ms,timeout=3s")
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "-l", b.dir], check=False)
        held = lock(b.path("k1"), fcntl.LOCK_EX)
        lease = b.acquire("k2")
        fds = [os.open(a.path(n), os.O_RDONLY) for n in ("k1", "k2")]
        n = stack.enter_context(inotify.Inotify())
        watches = [n.watch(a.path(name), DELETE_SELF) for name in ("k1", "k2")]
        for fd in fds:
            settle(fd)
        waiter = subprocess.Popen(["flock", a.path("k1"), "true"])
        time.sleep(0.3)  # A session that ran out is kept while nobody wants what it holds.
        b.kill()
        for fd in fds:
            wait_poll(fd, select.POLLIN)
            os.close(fd)
        n.wait(DELETE_SELF, wd=watches[1])
        equal(waiter.wait(20), 0, "flock")
        n.wait(DELETE_SELF, wd=watches[0])
        for fd in (held, lease):
            with contextlib.suppress(OSError):  # Nobody answers the close.
                os.close(fd)


def watch_files(a, b, rounds):
    """IN_DELETE_SELF, for each way in which a lock can end."""
    late = []
    os.makedirs(a.path("dir/sub"))
    ends = {
        "dir/sub/unlinked": lambda fd: os.unlink(a.path("dir/sub/unlinked")),
        "said": lambda fd: os.write(fd, b"release\n"),
        "expired": lambda fd: os.write(fd, b"renew 300ms\n"),
    }
    for name, end in ends.items():
        for there in (b, a):  # Across two mounts, and inside one.
            with inotify.Inotify() as n:
                fd = a.acquire(name)
                if there is a:
                    held, fd = fd, os.dup(fd)
                    os.close(held)
                n.watch(there.path(name), DELETE_SELF)
                n.quiet(0.2)
                equal(n.text(), [], "events while it is held")
                end(fd)
                os.close(fd)  # As locally: what is open is not deleted yet.
                n.wait(DELETE_SELF)
    # Many times, at once after the first look, and while others fail to get it.
    tries = subprocess.Popen(["sh", "-c", 'set -C; while :; do : > "$0"; done 2>/dev/null', b.path("race/x")])
    os.mkdir(a.path("race"))
    try:
        for i in range(rounds):
            fd = a.acquire("hot")
            with inotify.Inotify() as n:
                n.watch(b.path("hot"), DELETE_SELF)
                if i % 2:
                    n.quiet(0.15)
                began = time.monotonic_ns()
                os.unlink(a.path("hot"))
                os.close(fd)
                event = n.wait(DELETE_SELF)
                if i % 2:
                    late.append((event[3] - began) / 1e6)
    finally:
        tries.kill()
        tries.wait()
    print(f"  a watched lock released on another mount -> IN_DELETE_SELF: median "
          f"{statistics.median(late):.1f} ms, worst {max(late):.1f} ms of {len(late)}")


def watch_directories(a, d):
    """-o dirwatch: each change once, whoever made it."""
    os.mkdir(a.path("w"))
    late_created, late_deleted = [], []
    with inotify.Inotify() as n:
        n.watch(d.path("w"), DIRECTORY)

        def happens(what, *events):
            what()
            for mask, name in events:
                n.wait(mask, name)
            n.quiet(0.25)
            equal(n.text(), [], f"more than {events}")

        def kept(text):
            """Released by its mount, not by a system call of its holder."""
            subprocess.run(["sh", "-c", text, a.path("w/kept")], check=True)

        for m in (a, d):  # What this mount does itself the kernel tells, and nobody else.
            happens(lambda m=m: os.close(m.acquire("w/lease")), (CREATE, "lease"))
            happens(lambda m=m: os.unlink(m.path("w/lease")), (DELETE, "lease"))
            happens(lambda m=m: os.mkdir(m.path("w/m.lock")), (CREATE, "m.lock"))
            happens(lambda m=m: os.rmdir(m.path("w/m.lock")), (DELETE, "m.lock"))
            happens(lambda m=m: os.symlink("me", m.path("w/s")), (CREATE, "s"))
            happens(lambda m=m: os.rename(m.path("w/s"), m.path("w/t")), (MOVED_FROM, "s"), (MOVED_TO, "t"))
            happens(lambda m=m: os.unlink(m.path("w/t")), (DELETE, "t"))
            fd = m.acquire("w/said")
            n.wait(CREATE, "said")
            happens(lambda fd=fd: os.write(fd, b"release\n"), (DELETE, "said"))
            os.close(fd)
            fd = m.acquire("w/short")
            n.wait(CREATE, "short")
            happens(lambda fd=fd: os.write(fd, b"renew 300ms\n"), (DELETE, "short"))
            os.close(fd)
        happens(lambda: kept('set -C; : > "$0"; set +C; echo keep > "$0"'), (CREATE, "kept"), (DELETE, "kept"))
        fd = os.open(a.path("w/f"), os.O_RDWR | os.O_CREAT)
        happens(lambda: fcntl.flock(fd, fcntl.LOCK_EX), (CREATE, "f"))
        happens(lambda: fcntl.flock(fd, fcntl.LOCK_SH))
        happens(lambda: os.close(fd), (DELETE, "f"))
        for i in range(50):
            name = f"n{i}"
            began = time.monotonic_ns()
            os.close(a.acquire("w/" + name))
            late_created.append((n.wait(CREATE, name)[3] - began) / 1e6)
            began = time.monotonic_ns()
            os.unlink(a.path("w/" + name))
            late_deleted.append((n.wait(DELETE, name)[3] - began) / 1e6)
        equal(n.text(), [], "left over")
    for what, late in (("acquire", late_created), ("release", late_deleted)):
        print(f"  {what} on another mount (call included) -> event in the directory: median "
              f"{statistics.median(late):.1f} ms, worst {max(late):.1f} ms of {len(late)}")


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    options = "ttl=20s,timeout=5s"
    a = c.mount("a", options=options)
    b = c.mount("b", options=options)
    d = c.mount("d", options=options + ",dirwatch")
    poll_across(a, b)
    watch_files(a, b, 30)
    watch_directories(a, d)
    killed_mount(c, a)
    for m in (a, b, d):
        equal(m.unmount(), 0, f"exit of mount {m.name}")


if __name__ == "__main__":
    run_case(main)
