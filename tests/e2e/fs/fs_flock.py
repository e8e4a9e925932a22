"""flock and fcntl inside one mount: as on a local disk."""
import errno
import fcntl
import os
import resource
import signal
import struct
import subprocess
import time

from mountlib import Helper, acquire, fails, in_child, show, take, wait_until

OPTIONS = ""

EX, SH, NB, UN = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB, fcntl.LOCK_UN


def opened(path):
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o644)


def free(path):
    wait_until(lambda: not os.path.exists(path), 5)


def lock(kind, start=0, length=0, pid=0):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, pid)


def getlk(fd, kind, start=0, length=0, command=fcntl.F_GETLK):
    return struct.unpack("hhqqi4x", fcntl.fcntl(fd, command, lock(kind, start, length)))


def setlk(fd, kind, start=0, length=0, command=fcntl.F_SETLK):
    fcntl.fcntl(fd, command, lock(kind, start, length))


def peek(path):
    """show(), but by another process: a close() here would drop our fcntl locks."""
    out = subprocess.run(["cat", path], check=False, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in out.splitlines() if line)


def busy(function):
    """EWOULDBLOCK."""
    with fails("EAGAIN"):
        function()


def test_flock(m):
    p = m.path("f")
    a, b = opened(p), opened(p)
    with fails("ENOENT"):
        os.stat(p)
    fcntl.flock(a, EX)
    assert show(p)["mode"] == "exclusive" and show(p)["pid"] == str(os.getpid()), show(p)
    busy(lambda: fcntl.flock(b, EX | NB))
    busy(lambda: fcntl.flock(b, SH | NB))
    fcntl.flock(a, EX | NB)  # Again: nothing changes.
    fcntl.flock(a, SH)
    fcntl.flock(b, SH | NB)
    busy(lambda: fcntl.flock(b, EX | NB))  # And its shared lock is gone, as flock(2) says.
    fcntl.flock(a, EX | NB)
    fcntl.flock(a, UN)
    fcntl.flock(a, UN)
    with fails("ENOENT"):
        os.stat(p)
    fcntl.flock(b, EX | NB)
    os.close(b)
    fcntl.flock(a, EX | NB)
    os.close(a)
    free(p)


def test_inode_numbers(m):
    """The usual check that a lock file is still the one at its path."""
    p = m.path("ino")
    a, b = opened(p), opened(p)
    fcntl.flock(a, EX)
    assert os.fstat(a).st_ino == os.stat(p).st_ino == os.fstat(b).st_ino
    assert os.path.samestat(os.fstat(a), os.stat(p)) and os.fstat(a).st_nlink == 1
    entries = {e.name: e.inode() for e in os.scandir(m.dir)}
    assert entries["ino"] == os.stat(p).st_ino
    os.unlink(p)
    with fails("ENOENT"):
        os.stat(p)
    fcntl.flock(b, EX)
    assert os.fstat(b).st_ino == os.stat(p).st_ino
    os.close(a)
    os.close(b)
    free(p)
    # A file that was a lease when it was opened.
    take(p)
    c = os.open(p, os.O_RDONLY)
    os.unlink(p)
    fcntl.flock(c, EX)
    assert os.path.samestat(os.fstat(c), os.stat(p)), (os.fstat(c), os.stat(p))
    os.close(c)
    free(p)


def test_wait_and_handoff(m):
    p = m.path("wait")
    a = opened(p)
    fcntl.flock(a, EX)
    waiter = subprocess.Popen(["flock", p, "echo", "got"], stdout=subprocess.PIPE, text=True)
    wait_until(lambda: show(p)["waiters"] == "1", 5)
    assert waiter.poll() is None
    fcntl.flock(a, UN)
    assert waiter.communicate(timeout=5)[0] == "got\n"
    os.close(a)
    free(p)


def test_reused_open_file(m):
    """The kernel names an open file by its address, and tells of its end in the background: a new
    open file of the same name may lock before the daemon hears that the old one is gone."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # The address that was freed last comes first.
    locks = {"flock": lambda fd: fcntl.flock(fd, SH | NB),
             "ofd": lambda fd: setlk(fd, fcntl.F_RDLCK, 0, 0, fcntl.F_OFD_SETLK)}

    def old(p, take_lock):
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        files = [opened(p) for _ in range(1000)]
        for i, fd in enumerate(files):
            take_lock(fd)
            os.dup2(fd, 3500 - i)  # They are closed, and freed, by number.
            os.close(fd)

    def holders(p):
        with open(p, encoding="utf-8") as f:
            return f.read().count("owner=")

    try:
        for i in range(3, 7):
            kind = "ofd" if i % 2 else "flock"
            p = m.path("reused-" + kind)
            keep = opened(p)
            locks[kind](keep)
            in_child(lambda p=p, kind=kind: old(p, locks[kind]))
            others = [os.open("/dev/null", os.O_RDONLY) for _ in range(2 * i)]
            new = opened(p)
            locks[kind](new)
            wait_until(lambda p=p: holders(p) <= 2, 20)
            time.sleep(0.05)
            assert holders(p) == 2, "%s: the lock of %d went with another" % (kind, new)
            for fd in others + [new, keep]:
                os.close(fd)
            free(p)
    finally:
        os.sched_setaffinity(0, cpus)


def test_flock_program(m):
    p = m.path("program")
    with Helper() as h:
        h.ok("exec 9>'%s'" % p)
        h.ok("flock 9")
        assert subprocess.run(["flock", "-n", p, "true"], check=False).returncode == 1
        assert subprocess.run(["flock", "-w", "0.2", p, "true"], check=False).returncode == 1
        h.ok("echo some note >&9")
        assert show(p)["note"] == "some note", show(p)
        h.ok("echo another >'%s'" % p)
        assert show(p)["note"] == "another"
        h.ok("touch '%s'" % p)
        with fails("EPERM"):
            os.unlink(p)  # Not ours.
        h.ok("rm '%s'" % p)
        assert not os.path.exists(p)
        h.ok("flock -n 9")
        h.ok("exec 9>&-")
    free(p)
    assert subprocess.run(["flock", p, "sh", "-c", "exit 3"], check=False).returncode == 3
    free(p)


def test_inheritance(m):
    """fork, dup and exec share one open file, and so one lock."""
    p = m.path("inherit")
    a = opened(p)
    fcntl.flock(a, EX)
    d = os.dup(a)
    os.close(a)
    assert os.path.exists(p)
    os.set_inheritable(d, True)
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    os.close(d)
    time.sleep(0.05)
    assert os.path.exists(p)
    b = opened(p)
    busy(lambda: fcntl.flock(b, EX | NB))
    child.kill()
    child.wait()
    fcntl.flock(b, EX)
    in_child(lambda: fcntl.flock(b, UN))  # Of the one open file.
    c = opened(p)
    fcntl.flock(c, EX | NB)
    os.close(b)
    os.close(c)
    free(p)


def test_flock_o(m):
    p = m.path("o")
    assert subprocess.run(["flock", "-o", p, "bash", "-c", "sleep 0.3 & exit 0"], check=False).returncode == 0
    subprocess.run(["flock", "-n", p, "true"], check=True)
    free(p)


def test_kill_the_holder(m):
    p = m.path("kill")
    for number in (signal.SIGKILL, signal.SIGTERM):
        holder = subprocess.Popen(["flock", p, "sleep", "100"], start_new_session=True)
        wait_until(lambda: os.path.exists(p), 5)
        b = opened(p)
        busy(lambda b=b: fcntl.flock(b, EX | NB))
        os.killpg(holder.pid, number)
        began = time.monotonic()
        fcntl.flock(b, EX)
        assert time.monotonic() - began < 20
        holder.wait()
        os.close(b)
        free(p)


INTERRUPTED = r"""
import fcntl, os, signal, sys
class Stop(Exception): pass
def stop(*_): raise Stop()
signal.signal(signal.SIGINT, stop)
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
what = fcntl.flock if sys.argv[2] == "flock" else fcntl.lockf
print("ready", flush=True)
for line in sys.stdin:
    try:
        print("go", flush=True)
        what(fd, fcntl.LOCK_EX)
        print("locked", flush=True)
        what(fd, fcntl.LOCK_UN)
    except Stop:
        what(fd, fcntl.LOCK_UN)
        print("stopped", flush=True)
"""


def test_interrupt(m):
    """A blocked waiter is interrupted, again and again; no waiter and no hold is left."""
    for kind in ("flock", "lockf"):
        p = m.path("interrupt-" + kind)
        a = opened(p)
        fcntl.flock(a, EX)
        waiter = subprocess.Popen(["python3", "-c", INTERRUPTED, p, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True, bufsize=1)
        assert waiter.stdout.readline() == "ready\n"
        worst = 0
        for i in range(60):
            waiter.stdin.write("\n")
            assert waiter.stdout.readline() == "go\n"
            if i % 2:
                wait_until(lambda p=p: show(p)["waiters"] == "1", 5)
            else:
                time.sleep(0.002)
            if i % 7 == 6:
                fcntl.flock(a, UN)  # The interrupt races with the grant.
            sent = time.monotonic()
            waiter.send_signal(signal.SIGINT)
            said = waiter.stdout.readline()
            worst = max(worst, time.monotonic() - sent)
            if i % 7 == 6:
                fcntl.flock(a, EX)
                if said == "locked\n":  # The signal came after it, perhaps in the middle of the print.
                    time.sleep(0.01)
                    waiter.stdin.close()
                    waiter.wait(5)
                    waiter.stdout.close()
                    waiter = subprocess.Popen(["python3", "-c", INTERRUPTED, p, kind], stdin=subprocess.PIPE,
                                              stdout=subprocess.PIPE, text=True, bufsize=1)
                    assert waiter.stdout.readline() == "ready\n"
            else:
                assert said == "stopped\n", said
        assert worst < 20, worst
        wait_until(lambda p=p: show(p)["waiters"] == "0", 5)
        waiter.stdin.write("\n")
        assert waiter.stdout.readline() == "go\n"
        fcntl.flock(a, UN)
        assert waiter.stdout.readline() == "locked\n"
        waiter.stdin.close()
        assert waiter.wait(5) == 0
        waiter.stdout.close()
        os.close(a)
        free(p)


RESTARTED = r"""
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
n = [0]
def handler(*_): n[0] += 1
signal.signal(signal.SIGUSR1, handler)
signal.siginterrupt(signal.SIGUSR1, False)
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
print("ready", flush=True)
r = libc.flock(fd, 2)
print(r, flush=True)
sys.stdin.read()
"""


def test_restart_keeps_the_place(m):
    """A call that the kernel restarts after a handled signal stands where it stood in the queue."""
    p = m.path("place")
    a = opened(p)
    fcntl.flock(a, EX)
    first = subprocess.Popen(["python3", "-c", RESTARTED, p], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "ready\n"
    wait_until(lambda: show(p)["waiters"] == "1", 5)
    second = subprocess.Popen(["flock", p, "echo", "second"], stdout=subprocess.PIPE, text=True)
    wait_until(lambda: show(p)["waiters"] == "2", 5)
    for _ in range(5):
        first.send_signal(signal.SIGUSR1)
        time.sleep(0.06)
    assert show(p)["waiters"] == "2"
    fcntl.flock(a, UN)
    assert first.stdout.readline() == "0\n"
    assert second.poll() is None
    first.stdin.close()
    first.wait(5)
    first.stdout.close()
    assert second.communicate(timeout=5)[0] == "second\n"
    os.close(a)
    free(p)


def test_kill_a_waiter(m):
    p = m.path("kill-waiter")
    a = opened(p)
    fcntl.flock(a, EX)
    for _ in range(5):
        waiters = [subprocess.Popen(["flock", p, "true"]) for _ in range(4)]
        wait_until(lambda: show(p)["waiters"] == "4", 5)
        for w in waiters:
            w.kill()
        for w in waiters:
            w.wait(2)
        wait_until(lambda: show(p)["waiters"] == "0", 5)
    os.close(a)
    free(p)


def test_fcntl_ranges(m):
    p = m.path("ranges")
    a = opened(p)
    b_read, b_write = os.pipe()
    setlk(a, fcntl.F_WRLCK, 10, 10)

    def other():
        b = opened(p)
        busy(lambda: setlk(b, fcntl.F_RDLCK, 15, 1))
        setlk(b, fcntl.F_WRLCK, 20, 10)
        kind, _, start, length, pid = getlk(b, fcntl.F_WRLCK)
        assert (kind, start, length, pid) == (fcntl.F_WRLCK, 10, 10, os.getppid()), (kind, start, length, pid)
        assert getlk(b, fcntl.F_WRLCK, 0, 10)[0] == fcntl.F_UNLCK
        assert getlk(b, fcntl.F_WRLCK, 20, 0)[0] == fcntl.F_UNLCK  # Its own.

    in_child(other)
    setlk(a, fcntl.F_UNLCK, 14, 2)  # Split.
    in_child(lambda: setlk(opened(p), fcntl.F_WRLCK, 14, 2))
    in_child(lambda: busy(lambda: setlk(opened(p), fcntl.F_WRLCK, 13, 1)))
    setlk(a, fcntl.F_RDLCK, 10, 10)  # Downgrade, and merge.
    in_child(lambda: setlk(opened(p), fcntl.F_RDLCK, 0, 0))
    in_child(lambda: busy(lambda: setlk(opened(p), fcntl.F_WRLCK, 0, 0)))
    os.close(opened(p))  # Any close by the process drops them.
    in_child(lambda: setlk(opened(p), fcntl.F_WRLCK))
    with fails("EBADF"):
        setlk(os.open(p, os.O_RDONLY | os.O_CREAT), fcntl.F_WRLCK)
    os.close(a)
    os.close(b_read)
    os.close(b_write)
    free(p)


def test_getlk_among_many(m):
    """More locks on one file than one answer can hold."""
    p = m.path("many-ranges")
    a = opened(p)
    for i in range(1100):
        setlk(a, fcntl.F_WRLCK if i > 1050 else fcntl.F_RDLCK, 2 * i, 1)

    def child():
        b = opened(p)
        for i in (0, 1040, 1060, 1099):
            kind, _, start, length, pid = getlk(b, fcntl.F_WRLCK, 2 * i, 2)
            assert (kind != fcntl.F_UNLCK, start, length, pid) == (True, 2 * i, 1, os.getppid()), (i, kind, start, length)
            assert getlk(b, fcntl.F_WRLCK, 2 * i + 1, 1)[0] == fcntl.F_UNLCK
        assert getlk(b, fcntl.F_RDLCK)[2] == 2 * 1051
        setlk(b, fcntl.F_WRLCK, 5000, 1)

    in_child(child)
    assert getlk(a, fcntl.F_WRLCK)[0] == fcntl.F_UNLCK  # Its own.
    os.close(a)
    free(p)


def test_fcntl_fork_and_close(m):
    """A child does not inherit them, and can't release them."""
    p = m.path("fork")
    a = opened(p)
    fcntl.lockf(a, EX)

    def child():
        busy(lambda: fcntl.lockf(a, EX | NB))
        fcntl.lockf(a, UN)
        os.close(a)

    in_child(child)
    assert os.path.exists(p)
    in_child(lambda: busy(lambda: fcntl.lockf(opened(p), EX | NB)))
    fcntl.lockf(a, UN)
    in_child(lambda: fcntl.lockf(opened(p), EX | NB))
    os.close(a)
    free(p)


def test_ofd(m):
    p = m.path("ofd")
    a, b = opened(p), opened(p)
    setlk(a, fcntl.F_WRLCK, 0, 100, fcntl.F_OFD_SETLK)
    busy(lambda: setlk(b, fcntl.F_RDLCK, 50, 10, fcntl.F_OFD_SETLK))
    setlk(b, fcntl.F_RDLCK, 100, 10, fcntl.F_OFD_SETLK)
    os.close(opened(p))  # Not as with POSIX locks.
    assert getlk(b, fcntl.F_RDLCK, 0, 0, fcntl.F_OFD_GETLK)[:4] == (fcntl.F_WRLCK, 0, 0, 100)
    d = os.dup(a)
    os.close(a)
    busy(lambda: setlk(b, fcntl.F_RDLCK, 50, 10, fcntl.F_OFD_SETLK))
    os.close(d)
    wait_until(lambda: getlk(b, fcntl.F_WRLCK, 0, 100, fcntl.F_OFD_GETLK)[0] == fcntl.F_UNLCK, 5)
    setlk(b, fcntl.F_WRLCK, 0, 0, fcntl.F_OFD_SETLK)
    os.close(b)
    free(p)


def test_exclusion_among_kinds(m):
    p = m.path("kinds")
    a, b = opened(p), opened(p)
    fcntl.flock(a, EX)
    in_child(lambda: busy(lambda: fcntl.lockf(b, EX | NB)))
    with fails("EEXIST"):
        acquire(p)
    fcntl.flock(a, UN)
    fcntl.lockf(b, SH)
    in_child(lambda: busy(lambda: fcntl.flock(opened(p), EX | NB)))
    in_child(lambda: fcntl.flock(opened(p), SH | NB))
    with fails("EEXIST"):
        acquire(p)
    fcntl.lockf(b, UN)
    take(p)
    busy(lambda: fcntl.flock(a, SH | NB))
    busy(lambda: fcntl.lockf(b, EX | NB))
    os.unlink(p)
    fcntl.flock(a, EX | NB)
    os.close(a)
    os.close(b)
    free(p)


def test_both_kinds_on_one_descriptor(m):
    """A process that locks a descriptor by flock and by fcntl is not in its own way."""
    p = m.path("both")

    def others(flock=None, lockf=None):
        """What another process can have: the mode, or None."""
        def child():
            fd = opened(p)
            for lock_it, best in ((fcntl.flock, flock), (fcntl.lockf, lockf)):
                for mode in (EX, SH):
                    if best is not None and mode in (best, SH):
                        lock_it(fd, mode | NB)
                        lock_it(fd, UN)
                    else:
                        busy(lambda lock_it=lock_it, mode=mode: lock_it(fd, mode | NB))
        in_child(child)

    for first, second in ((fcntl.flock, fcntl.lockf), (fcntl.lockf, fcntl.flock)):
        for unlock in ((first, second), (second, first), None):
            a = opened(p)
            first(a, EX | NB)
            assert getlk(a, fcntl.F_WRLCK)[0] == fcntl.F_UNLCK
            second(a, EX)
            second(a, SH | NB)
            second(a, EX | NB)
            others()
            if unlock:
                unlock[0](a, UN)
                others()
                unlock[0](a, EX | NB)
                unlock[0](a, UN)
                unlock[1](a, UN)
                assert not os.path.exists(p)
                first(a, SH | NB)  # It is as it was in the beginning.
                others(SH, SH)
                first(a, UN)
            os.close(a)
            free(p)
        a = opened(p)
        first(a, EX)
        second(a, EX)
        first(a, SH)
        others()
        second(a, UN)
        wait_until(lambda: peek(p)["mode"] == "shared", 5)
        others(SH, SH)
        os.unlink(p)
        assert not os.path.exists(p)
        first(a, EX)
        second(a, EX)
        os.write(a, b"both")
        assert peek(p)["note"] == "both"
        os.unlink(p)
        assert not os.path.exists(p)
        others(EX, EX)
        first(a, EX | NB)
        os.close(a)
        free(p)
    # Ranges.
    a = opened(p)
    fcntl.flock(a, EX)
    setlk(a, fcntl.F_WRLCK, 10, 10)
    setlk(a, fcntl.F_RDLCK, 12, 2)
    fcntl.flock(a, UN)
    others()
    setlk(a, fcntl.F_UNLCK, 10, 10)
    free(p)
    # A child shares the open file, but is another process.
    fcntl.flock(a, EX)
    in_child(lambda: busy(lambda: fcntl.lockf(a, EX | NB)))
    fcntl.lockf(a, EX)
    in_child(lambda: busy(lambda: fcntl.lockf(a, EX | NB)))
    in_child(lambda: fcntl.flock(a, UN))
    others()
    os.close(opened(p))  # The fcntl lock goes, and with it what flock left.
    free(p)
    fcntl.lockf(a, EX)
    fcntl.flock(a, EX)
    os.close(opened(p))
    others()
    fcntl.flock(a, UN)
    free(p)
    os.close(a)
    # One descriptor each: they are in each other's way, as all others are.
    a, b = opened(p), opened(p)
    fcntl.flock(a, EX)
    busy(lambda: fcntl.lockf(b, EX | NB))
    os.close(a)
    os.close(b)
    free(p)


def test_adopt(m):
    """flock and fcntl on the descriptor that acquired stand on its lease."""
    p = m.path("adopt")
    a = acquire(p)
    token = peek(p)["token"]
    ino = os.fstat(a).st_ino
    fcntl.flock(a, EX | NB)
    fcntl.lockf(a, EX | NB)
    assert peek(p)["token"] == token and os.stat(p).st_ino == os.fstat(a).st_ino == ino
    in_child(lambda: busy(lambda: fcntl.lockf(a, EX | NB)))
    b = os.open(p, os.O_RDWR)
    busy(lambda: fcntl.flock(b, SH | NB))
    fcntl.flock(a, UN)
    assert peek(p)["token"] == token  # The lease remains.
    busy(lambda: fcntl.flock(b, SH | NB))
    os.close(a)
    assert peek(p)["token"] == token
    os.unlink(p)
    fcntl.flock(b, EX | NB)
    os.close(b)
    free(p)


def test_pid_file(m):
    """What daemons do: open, lock, truncate, write the pid."""
    p = m.path("daemon.pid")
    a = opened(p)
    fcntl.lockf(a, EX | NB)
    os.ftruncate(a, 0)
    os.write(a, b"%d\n" % os.getpid())
    assert peek(p)["note"] == str(os.getpid())
    os.unlink(p)
    os.close(a)
    free(p)


def test_deadlock(m):
    p, q = m.path("dead1"), m.path("dead2")
    a, b = opened(p), opened(q)
    fcntl.lockf(a, EX)
    with Helper(shell="bash") as h:
        h.process.stdin.write("python3 -c \"import fcntl,os; a=os.open('%s',66); b=os.open('%s',66); fcntl.lockf(b,2); "
                              "fcntl.lockf(a,2)\"\n" % (p, q))
        h.process.stdin.flush()
        wait_until(lambda: os.path.exists(p) and peek(p)["waiters"] == "1", 10)
        with fails("EDEADLK", "EDEADLOCK"):
            fcntl.lockf(b, EX)
        fcntl.lockf(a, UN)
        assert "status=0" in h.process.stdout.readline()
    os.close(a)
    os.close(b)


def test_threads(m):
    """flock takes no part in deadlock detection: a process may have many threads."""
    import threading  # pylint: disable=import-outside-toplevel
    p = m.path("threads")
    count = [0]

    def work():
        fd = opened(p)
        for _ in range(20):
            fcntl.flock(fd, EX)
            was = count[0]
            time.sleep(0.0001)
            count[0] = was + 1
            fcntl.flock(fd, UN)
        os.close(fd)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert count[0] == 100
    free(p)


def test_many(m):
    """No herd: many waiters, one after the other."""
    p = m.path("many")
    began = time.monotonic()
    script = "n=$(cat '%s.count' 2>/dev/null || echo 0); echo $((n+1)) >'%s.count'" % (m.base + "/c", m.base + "/c")
    waiters = [subprocess.Popen(["flock", p, "bash", "-c", script]) for _ in range(40)]
    for w in waiters:
        assert w.wait(30) == 0
    with open(m.base + "/c.count", encoding="utf-8") as f:
        assert f.read() == "40\n"
    assert time.monotonic() - began < 30
    free(p)


def test_errors(m):
    d = os.open(m.dir, os.O_DIRECTORY)
    fcntl.flock(d, EX | NB)  # A directory's is the kernel's own, local to the host: documented.
    os.close(d)
    os.mkdir(m.path("gone"))
    fd = opened(m.path("gone", "x"))
    os.rmdir(m.path("gone"))
    with fails("ESTALE"):
        fcntl.flock(fd, EX | NB)
    os.close(fd)
    assert errno.EWOULDBLOCK == errno.EAGAIN


THREADS = r"""
import fcntl, os, struct, sys, threading, time
path = sys.argv[1]
def lock(kind, start, length): return struct.pack("hhqqi4x", kind, 0, start, length, 0)
fd = os.open(path, os.O_CREAT | os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLK, lock(fcntl.F_WRLCK, 0, 10))
def wait():
    fcntl.fcntl(fd, fcntl.F_SETLKW, lock(fcntl.F_WRLCK, 10, 10))
    print("got", flush=True)
thread = threading.Thread(target=wait)
thread.start()
print("waits", flush=True)
sys.stdin.readline()
if sys.argv[2] == "unlink":
    os.unlink(path)
else:
    os.close(os.open(path, os.O_RDONLY))
print("done", flush=True)
thread.join()
sys.stdin.readline()
fcntl.fcntl(fd, fcntl.F_SETLK, lock(fcntl.F_UNLCK, 0, 0))
print("unlocked", flush=True)
sys.stdin.readline()
"""


def test_release_under_a_waiter(m):
    """One thread waits for a range while another drops all that the process holds."""
    for how in ("unlink", "close"):
        p = m.path("under-" + how)
        a = opened(p)
        setlk(a, fcntl.F_WRLCK, 10, 10, fcntl.F_OFD_SETLK)
        other = subprocess.Popen(["python3", "-c", THREADS, p, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 text=True, bufsize=1)
        assert other.stdout.readline() == "waits\n"
        wait_until(lambda p=p: peek(p)["waiters"] == "1", 5)
        other.stdin.write("\n")
        assert other.stdout.readline() == "done\n"
        setlk(a, fcntl.F_WRLCK, 0, 10, fcntl.F_OFD_SETLK)
        setlk(a, fcntl.F_UNLCK, 0, 0, fcntl.F_OFD_SETLK)
        assert other.stdout.readline() == "got\n"
        busy(lambda a=a: setlk(a, fcntl.F_WRLCK, 15, 1, fcntl.F_OFD_SETLK))
        other.stdin.write("\n")
        assert other.stdout.readline() == "unlocked\n"
        setlk(a, fcntl.F_WRLCK, 0, 0, fcntl.F_OFD_SETLK)
        os.close(a)
        other.communicate("\n", timeout=5)
        free(p)


# Takes a shared lock, tells the token that its own child sees.
READER = r"""
import fcntl, os, subprocess, sys
f = open(sys.argv[1], "w")
fcntl.flock(f, fcntl.LOCK_SH)
out = subprocess.run(["getfattr", "--absolute-names", "--only-values", "-n", "user.holdfast.token", sys.argv[1]],
                     check=True, capture_output=True, text=True)
print(out.stdout, os.getxattr(f.fileno(), "user.holdfast.token").decode(), flush=True)
sys.stdin.readline()
"""


def test_attributes(m):
    """The token, for whoever locks; of several readers each is told its own."""
    p = m.path("attributes")
    a = opened(p)
    for target in (a, p):
        with fails("ENOENT" if target == p else "ENODATA"):
            os.getxattr(target, "user.holdfast.token")
    fcntl.flock(a, EX)
    token = show(p)["token"]
    for target in (a, p):
        assert os.getxattr(target, "user.holdfast.token").decode() == token
        assert os.getxattr(target, "user.holdfast.mode") == b"exclusive"
        assert set(os.listxattr(target)) == {
            "user.holdfast." + n for n in ("token", "owner", "ttl_ms", "remaining_ms", "mode")}
    fcntl.flock(a, UN)
    readers = [subprocess.Popen(["python3", "-c", READER, p], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for _ in range(3)]
    tokens = []
    for r in readers:
        by_path, by_descriptor = r.stdout.readline().split()
        assert by_path == by_descriptor, (by_path, by_descriptor)
        assert int(by_path) > int(token), (by_path, token)
        tokens.append(by_path)
    assert len(set(tokens)) == 3, tokens
    for r in readers:
        r.communicate("\n", timeout=5)
    os.close(a)
    free(p)
