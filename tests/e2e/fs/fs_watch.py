"""poll, select, epoll and inotify on lock files, all inside one mount."""
import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from inotify import ATTRIB, CREATE, DELETE, DELETE_SELF, DONT_FOLLOW, Inotify  # noqa: E402
from mountlib import (BUILD, NOBODY, SLOW, Mount, acquire, fails, in_child, is_mounted, program, say,  # noqa: E402
                      wait_until)

OPTIONS = "ttl=20s"
ALL = select.POLLIN | select.POLLPRI
LOST = select.POLLERR | select.POLLHUP


def events(fd, ms=0, mask=ALL):
    """What poll(2) says; 0: nothing."""
    p = select.poll()
    p.register(fd, mask)
    return dict(p.poll(ms)).get(fd, 0)


def soon(fd, wanted, mask=ALL, seconds=10):
    """Wait until poll(2) says so.  One that waits for something is woken, not asked again."""
    end = time.monotonic() + seconds
    while True:
        got = events(fd, int(1000 * (end - time.monotonic())) if wanted else 0, mask)
        if got & mask == wanted or got & LOST:
            assert got == wanted, "poll says %x, not %x" % (got, wanted)
            return
        assert time.monotonic() < end, "poll says %x, not %x" % (got, wanted)
        time.sleep(0.005)


def settle(fd):
    """Begin to watch, and let the mount have its first look."""
    assert events(fd) == 0
    time.sleep(0.15)
    assert events(fd) == 0


@contextlib.contextmanager
def child(function):
    """A process that runs function() and then sleeps until it is killed."""
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
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def flock_in_child(path, mode=fcntl.LOCK_EX):
    def run():
        fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT), mode)
    return child(run)


def test_a_release_is_news_until_it_is_read(m):
    path = m.path("p1")
    holder = acquire(path)
    fd = os.open(path, os.O_RDONLY)
    settle(fd)
    os.unlink(path)
    soon(fd, select.POLLIN)
    soon(fd, select.POLLIN)  # Level: until it is read.
    assert os.read(fd, 4096) == b""
    assert events(fd) == 0
    again = acquire(path)
    soon(fd, select.POLLIN)
    assert b"token=" in os.pread(fd, 4096, 0)
    assert events(fd) == 0
    say(path, "a note")
    soon(fd, select.POLLIN)
    os.unlink(path)
    for f in (holder, again, fd):
        os.close(f)


def test_what_happened_before_the_first_poll_counts(m):
    path = m.path("p2")
    holder = acquire(path)
    fd = os.open(path, os.O_RDONLY)
    os.unlink(path)
    soon(fd, select.POLLIN)
    os.close(fd)
    os.close(holder)
    free = os.open(path, os.O_RDWR | os.O_CREAT)  # Opened while it was free.
    holder = acquire(path)
    soon(free, select.POLLIN)
    os.unlink(path)
    os.close(free)
    os.close(holder)


def test_own_actions_and_renewals_are_no_news(m):
    path = m.path("p3")
    fd = acquire(path)
    settle(fd)
    os.write(fd, b"renew 30s\n")
    os.write(fd, b"a note\n")
    time.sleep(0.1)
    assert events(fd) == 0
    reader = os.open(path, os.O_RDONLY)
    settle(reader)
    os.write(fd, b"renew 31s\n")
    time.sleep(0.1)
    assert events(reader) == 0
    os.write(fd, b"release\n")
    soon(reader, select.POLLIN)
    os.close(fd)
    os.close(reader)
    locked = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(locked, fcntl.LOCK_EX)
    settle(locked)
    fcntl.flock(locked, fcntl.LOCK_SH)
    fcntl.flock(locked, fcntl.LOCK_UN)
    fcntl.flock(locked, fcntl.LOCK_EX)
    time.sleep(0.1)
    assert events(locked) == 0
    os.close(locked)


def test_a_waiter_is_told_as_long_as_it_waits(m):
    path = m.path("p4")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    settle(fd)
    with flock_in_child(path) as pid:
        soon(fd, select.POLLIN)
        os.pread(fd, 4096, 0)
        soon(fd, select.POLLIN)  # Reading makes nobody go away.
        with flock_in_child(path):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            time.sleep(0.1)
            soon(fd, select.POLLIN)
        soon(fd, 0)
    # Also a waiter who was there before the first poll, and before the lock.
    os.close(fd)
    first = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX)
    with flock_in_child(path):
        time.sleep(0.1)
        soon(first, select.POLLIN)
    os.close(first)


def test_range_locks_are_wanted_where_they_overlap(m):
    path = m.path("p5")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
    settle(fd)

    def lock(start):
        return lambda: fcntl.lockf(os.open(path, os.O_RDWR), fcntl.LOCK_EX, 10, start)

    with child(lock(100)):
        soon(fd, select.POLLIN)  # A new holder is a change.
        os.pread(fd, 4096, 0)
        time.sleep(0.1)
        assert events(fd) == 0
        with child(lock(5)):
            soon(fd, select.POLLIN)
            os.pread(fd, 4096, 0)
            soon(fd, select.POLLIN)
        soon(fd, 0)
    os.close(fd)


def test_epoll_level_and_edge(m):
    path = m.path("p6")
    for edge in (False, True):
        holder = acquire(path)
        fd = os.open(path, os.O_RDONLY)
        ep = select.epoll()
        ep.register(fd, select.EPOLLIN | (select.EPOLLET if edge else 0))
        assert ep.poll(0.2) == []
        os.unlink(path)
        assert ep.poll(10) == [(fd, select.EPOLLIN)]
        assert ep.poll(0.1) == ([] if edge else [(fd, select.EPOLLIN)])
        os.close(holder)
        holder = acquire(path)  # Not read in between: another edge all the same.
        assert ep.poll(10) == [(fd, select.EPOLLIN)]
        os.pread(fd, 4096, 0)
        assert ep.poll(0.1) == []
        os.unlink(path)
        assert ep.poll(10) == [(fd, select.EPOLLIN)]
        ep.close()
        os.close(fd)
        os.close(holder)


def test_select_and_always_writable(m):
    path = m.path("p7")
    fd = acquire(path)
    assert select.select([fd], [fd], [fd], 0.2) == ([], [fd], [])
    assert events(fd, 0, select.POLLOUT) == select.POLLOUT
    os.unlink(path)
    os.close(fd)


def test_jeopardy_then_loss_of_a_lease(m):
    path = m.path("p8")
    fd = acquire(path)
    os.write(fd, b"renew 1200ms\n")
    began = time.monotonic()
    assert events(fd) == 0
    soon(fd, select.POLLPRI)
    assert time.monotonic() - began > 0.5, "jeopardy came early"
    os.write(fd, b"renew 1200ms\n")
    soon(fd, 0)
    soon(fd, select.POLLPRI)
    got = 0
    wait = select.poll()
    wait.register(fd, 0)
    for _, got in wait.poll(10000):
        pass
    assert got == LOST, "poll says %x" % got
    with fails("ESTALE"):
        os.read(fd, 100)
    assert events(fd) & LOST == LOST
    os.close(fd)


def test_a_broken_lock_is_lost(m):
    path = m.path("p9")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    settle(fd)
    token = int(os.getxattr(path, "user.holdfast.token"))
    subprocess.run([os.path.join(BUILD, "tools/holdfast"), "break", "p9", "--token", str(token), "--cluster",
                    "unix:%s/client.sock" % m.data], check=True, timeout=20, stdout=subprocess.DEVNULL)
    wait = select.poll()
    wait.register(fd, 0)
    assert wait.poll(10000) == [(fd, LOST)]
    os.close(fd)


def test_many_descriptors_of_many_locks(m):
    """More paths than one subscription takes, then none again."""
    fds = []
    os.mkdir(m.path("many"))
    n = 300
    holders = [acquire(m.path("many", str(i))) for i in range(n)]
    ep = select.epoll()
    for i in range(n):
        fds.append(os.open(m.path("many", str(i)), os.O_RDONLY))
        ep.register(fds[-1], select.EPOLLIN | select.EPOLLET)
    assert ep.poll(0.3) == []
    for i in range(n):
        os.unlink(m.path("many", str(i)))
    told = set()
    end = time.monotonic() + 20
    while len(told) < n and time.monotonic() < end:
        told.update(fd for fd, _ in ep.poll(1))
    assert told == set(fds), "told of %d of %d" % (len(told), n)
    for f in fds + holders:
        os.close(f)
    ep.close()
    os.rmdir(m.path("many"))


def deleted_self(path, held, end, flags=0):
    """A watch on what is held at path ends when end() ends the hold, and not before."""
    with Inotify() as n:
        held()
        n.watch(path, DELETE_SELF | flags)
        n.quiet(0.2)
        assert n.text() == [], n.text()
        end()
        n.wait(DELETE_SELF)


def test_a_watched_file_is_deleted_when_its_hold_ends(m):
    path = m.path("i1")
    fds = []

    def take():
        fds.append(acquire(path))

    def release():
        os.write(fds[-1], b"release\n")
        os.close(fds.pop())

    def expire():
        os.write(fds[-1], b"renew 300ms\n")
        os.close(fds.pop())

    def unlink():
        os.unlink(path)
        os.close(fds.pop())

    for end in (release, expire, unlink):
        deleted_self(path, take, end)

    def lock():
        fds.append(os.open(path, os.O_RDWR | os.O_CREAT))
        fcntl.flock(fds[-1], fcntl.LOCK_EX)

    deleted_self(path, lock, lambda: os.close(fds.pop()))
    lock_dir = m.path("i2.lock")
    deleted_self(lock_dir, lambda: os.mkdir(lock_dir), lambda: os.rmdir(lock_dir))
    deleted_self(lock_dir, lambda: os.mkdir(lock_dir), lambda: shorten(lock_dir))
    link = m.path("i3")
    deleted_self(link, lambda: os.symlink("me", link), lambda: os.unlink(link), DONT_FOLLOW)


def shorten(path):
    os.setxattr(path, "user.holdfast.ttl_ms", b"300")


def test_an_open_file_is_deleted_when_it_is_closed(m):
    path = m.path("i4")
    fd = acquire(path)
    with Inotify() as n:
        n.watch(path, DELETE_SELF)
        os.write(fd, b"renew 200ms\n")
        wait_until(lambda: not os.path.exists(path))
        n.quiet(0.3)
        assert n.text() == [], n.text()
        os.close(fd)
        n.wait(DELETE_SELF)


def test_a_file_that_stands_is_not_deleted(m):
    """However often it is looked at, and whoever fails to get it."""
    path = m.path("i5")
    fd = acquire(path)
    os.close(fd)
    with Inotify() as n:
        n.watch(path, DELETE_SELF)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            with fails("EEXIST"):
                acquire(path)
            os.stat(path)
            os.utime(path)
        n.quiet(0.2)
        assert n.text() == [], n.text()
        os.unlink(path)
        n.wait(DELETE_SELF)


def test_without_dirwatch_nothing_is_added(m):
    """Local changes once, by the kernel."""
    os.mkdir(m.path("i6"))
    path = m.path("i6", "x")
    with Inotify() as n:
        n.watch(m.path("i6"), CREATE | DELETE)
        for _ in range(20):
            os.close(acquire(path))
            os.unlink(path)
        for _ in range(20):
            n.wait(CREATE, "x")
            n.wait(DELETE, "x")
        n.quiet(0.3)
        assert n.text() == [], n.text()
    os.rmdir(m.path("i6"))


def dirwatch_once(base):
    """In one mount with dirwatch: each change once, whoever tells it."""
    os.mkdir(base + "/d")
    path = base + "/d/x"
    with Inotify() as n:
        n.watch(base + "/d", CREATE | DELETE)
        for how in ("unlink", "release", "expire", "keep"):
            if how == "keep":
                subprocess.run(["sh", "-c", 'set -C; : > "$0"; set +C; echo keep > "$0"', path], check=True)
            else:
                fd = acquire(path)
                if how == "unlink":
                    os.unlink(path)
                else:
                    os.write(fd, b"release\n" if how == "release" else b"renew 300ms\n")
                os.close(fd)
            n.wait(CREATE, "x")
            n.wait(DELETE, "x")
            n.quiet(0.3)
            assert n.text() == [], (how, n.text())
    os.rmdir(base + "/d")


def test_dirwatch_tells_each_change_once(m):
    del m
    with Mount("dirwatch,ttl=20s") as d:
        dirwatch_once(d.dir)
    with Mount("dirwatch,ttl=20s,release=async") as d:
        dirwatch_once(d.dir)


def test_unmounted_while_watched(m):
    """Nothing is replayed in what lies under a mount that is gone."""
    del m
    with Mount("dirwatch,ttl=20s") as d:
        os.mkdir(d.path("u"))
        fd = acquire(d.path("u", "x"))
        os.write(fd, b"renew 1s\n")
        cwd = os.open(d.path("u"), os.O_RDONLY | os.O_DIRECTORY)
        with Inotify() as n:
            n.watch(d.path("u"), DELETE)
            subprocess.run(["umount", "-l", d.dir], check=True)
            os.mkdir(d.path("u"))  # Under the mount point.
            with open(d.path("u", "x"), "w", encoding="utf-8"):
                pass
            time.sleep(1.5)
            assert os.path.exists(d.path("u", "x"))
        os.close(fd)
        os.close(cwd)
        d.daemon.check(d.daemon.process.wait(60 if SLOW else 20))
        shutil.rmtree(d.path("u"))


def test_ordinary_user(m):
    """The thread has no more rights than its user."""
    del m
    if shutil.which("fusermount3") is None:
        raise unittest.SkipTest("no fusermount3 here")
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    copy, d = base + "/mount.holdfast", base + "/mnt"
    shutil.copy(program("mount.holdfast"), copy)
    os.mkdir(d)
    for name in (base, d):
        os.chown(name, NOBODY, NOBODY)
    mode = os.stat("/dev/fuse").st_mode
    os.chmod("/dev/fuse", 0o666)
    with open(base + "/log", "wb") as log:
        p = subprocess.Popen(["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", copy,
                              "local", d, "-f", "-o", "dirwatch,data=%s/data" % base], stdout=log, stderr=log)
    try:
        wait_until(lambda: is_mounted(d), 30)

        def run():
            dirwatch_once(d)
            path = d + "/x"
            fd = acquire(path)
            with Inotify() as n:
                n.watch(path, DELETE_SELF | ATTRIB)
                os.write(fd, b"renew 300ms\n")
                os.close(fd)
                n.wait(DELETE_SELF)

        in_child(run, NOBODY)
    finally:
        p.terminate()
        status = p.wait(60 if SLOW else 20)
        os.chmod("/dev/fuse", mode & 0o7777)
        with open(base + "/log", errors="replace", encoding="utf-8") as f:
            text = f.read()
        subprocess.run(["umount", "-l", d], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(base, ignore_errors=True)
    assert status == 0 and "Sanitizer" not in text and "runtime error" not in text, text[-3000:]
