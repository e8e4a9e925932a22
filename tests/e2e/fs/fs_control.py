"""`.holdfast/`: status, metrics, events, sessions, members, on one mount."""
import fcntl
import os
import select
import subprocess
import sys
import time

from mountlib import NOBODY, acquire, fails, in_child, take, wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fields  # noqa: E402
import prometheus  # noqa: E402

OPTIONS = ""
NAMES = {"status", "metrics", "events", "sessions", "members"}


def control(m, name=""):
    return m.path(".holdfast", name) if name else m.path(".holdfast")


def read(m, name):
    with open(control(m, name), "rb") as f:
        return f.read()


def status(m):
    """status has one pair a line."""
    found = {}
    for line in fields.lines(read(m, "status")):
        assert len(line) == 1 and not set(line) & set(found), line
        found.update({k: v.decode() for k, v in line.items()})
    return found


def metrics(m):
    return prometheus.parse(read(m, "metrics").decode())


class Events:
    """A reader of the event file, from its end (or its beginning) on."""

    def __init__(self, m, whole=False):
        self.fd = os.open(control(m, "events"), os.O_RDONLY)
        if not whole:
            os.lseek(self.fd, 0, os.SEEK_END)
        self.data = b""
        self.seen = []

    def more(self, size=65536):
        """Read what there is: the new lines."""
        while True:
            part = os.read(self.fd, size)
            if not part:
                break
            self.data += part
        whole, _, self.data = self.data.rpartition(b"\n")
        new = fields.lines(whole + b"\n") if whole else []
        self.seen += new
        return new

    def wait(self, event, seconds=10, **having):
        """Until a line with these fields has come; it and all before it are taken."""
        wanted = {k: str(v).encode() for k, v in dict(having, event=event).items()}

        def come():
            self.more()
            for i, line in enumerate(self.seen):
                if wanted.items() <= line.items():
                    del self.seen[:i + 1]
                    come.line = line
                    return True
            return False

        try:
            wait_until(come, seconds)
        except AssertionError:
            raise AssertionError("no line %r in %r" % (wanted, self.seen[-20:])) from None
        return come.line

    def close(self):
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def quiet(m):
    """Until the last log of events is over: nobody has it open."""
    wait_until(lambda: os.stat(control(m, "events")).st_size == 0, 30)


def test_directory(m):
    take(m.path("seen"))
    assert os.listdir(m.dir) == ["seen"], os.listdir(m.dir)
    found = subprocess.run(["find", m.dir], check=True, capture_output=True, text=True).stdout
    assert ".holdfast" not in found, found
    assert set(os.listdir(control(m))) == NAMES
    subprocess.run(["ls", "-la", control(m)], check=True, capture_output=True)
    subprocess.run("rm -r '%s'/*" % m.dir, shell=True, check=True)
    st = os.stat(control(m))
    assert st.st_mode == 0o40555 and st.st_uid == st.st_gid == 0, st
    numbers = {e.name: e.inode() for e in os.scandir(control(m))}
    assert len(set(numbers.values()) | {st.st_ino, os.stat(m.dir).st_ino}) == len(NAMES) + 2
    for name in NAMES:
        st = os.stat(control(m, name))
        assert st.st_mode == 0o100444 and st.st_uid == st.st_gid == 0 and st.st_nlink == 1, st
        assert st.st_ino == numbers[name]
        assert os.listxattr(control(m, name)) == []
    # One entry at a time, and from the middle.
    import ctypes  # pylint: disable=import-outside-toplevel
    libc = ctypes.CDLL(None, use_errno=True)
    fd, got = os.open(control(m), os.O_RDONLY | os.O_DIRECTORY), b""
    buffer = ctypes.create_string_buffer(48)
    while (n := libc.syscall(217, fd, buffer, 48)) > 0:  # getdents64
        got += buffer.raw[:n]
    os.close(fd)
    assert n == 0 and all(name.encode() in got for name in NAMES), got
    with fails("ENOENT"):
        os.stat(control(m, "nothing"))
    os.mkdir(m.path("sub"))
    with fails("ENOENT"):
        os.stat(m.path("sub", ".holdfast"))
    os.rmdir(m.path("sub"))


def test_refused(m):
    c = control(m)
    take(m.path("other"))
    table = {
        "EPERM": [
            lambda: acquire(c + "/new"), lambda: os.open(c + "/new", os.O_CREAT | os.O_WRONLY),
            lambda: os.mkdir(c + "/d"), lambda: os.mkdir(c + "/d.lock"), lambda: os.mknod(c + "/n"),
            lambda: os.symlink("x", c + "/s"), lambda: os.link(m.path("other"), c + "/l"),
            lambda: os.link(c + "/status", m.path("l")), lambda: os.unlink(c + "/status"),
            lambda: os.rmdir(c), lambda: os.rename(c, m.path("x")),
            lambda: os.rename(c + "/status", c + "/x"), lambda: os.rename(c + "/status", m.path("x")),
            lambda: os.rename(m.path("other"), c + "/x"), lambda: os.rename(m.path("other"), c + "/status"),
        ],
        "EROFS": [
            lambda: os.open(c + "/status", os.O_WRONLY), lambda: os.open(c + "/events", os.O_RDWR),
            lambda: os.open(c + "/status", os.O_RDONLY | os.O_TRUNC), lambda: os.truncate(c + "/status", 0),
            lambda: os.chmod(c + "/status", 0o600), lambda: os.chmod(c, 0o777),
            lambda: os.chown(c + "/status", 1, 1), lambda: os.utime(c + "/status"), lambda: os.utime(c),
            lambda: os.setxattr(c + "/status", "user.x", b"y"),
            lambda: os.removexattr(c + "/status", "user.x"),
        ],
        "EEXIST": [lambda: os.mkdir(c), lambda: acquire(c + "/status"), lambda: os.mkdir(c + "/status")],
        "EISDIR": [lambda: os.rename(m.path("other"), c)],
        "ENODATA": [lambda: os.getxattr(c + "/status", "user.holdfast.token")],
    }
    for names, functions in table.items():
        for i, function in enumerate(functions):
            try:
                with fails(*names.split()):
                    function()
            except AssertionError as e:
                raise AssertionError("%s, number %d: %s" % (names, i, e)) from None
    fd = os.open(c + "/status", os.O_RDONLY)
    for lock in (lambda: fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
                 lambda: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)):
        with fails("ENOLCK"):
            lock()
    os.close(fd)
    assert os.stat(m.path("other")).st_nlink == 1
    os.unlink(m.path("other"))
    in_child(lambda: nobody(c), NOBODY)


def nobody(c):
    """Others may read all, and change no more than root."""
    for name in NAMES:
        with open(c + "/" + name, "rb") as f:
            f.read()
        with fails("EACCES"):
            os.open(c + "/" + name, os.O_WRONLY)
    with fails("EACCES"):
        acquire(c + "/new")
    with fails("EACCES"):
        os.unlink(c + "/status")


def test_status(m):
    s = status(m)
    assert s["source"] == "local" and s["mount"] == m.dir and s["pid"] == str(m.daemon.pid), s
    assert s["connected"] == "yes" and s["node_answers"] == "yes" and s["leader"] == s["node"] == "1", s
    assert s["session_state"] == "open" and s["jeopardy"] == "no" and s["holds"] == "0", s
    assert 0 < int(s["session_remaining_ms"]) <= int(s["session_ttl_ms"]) == 10000, s
    fd = os.open(m.path("l"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    other = os.open(m.path("p"), os.O_CREAT | os.O_RDWR)
    fcntl.lockf(other, fcntl.LOCK_EX)
    take(m.path("excl"))
    with subprocess.Popen(["flock", m.path("l"), "true"]) as waiter:
        wait_until(lambda: status(m)["waiters"] == "1")
        t = status(m)
        assert (t["holds"], t["leases"], t["flock"], t["fcntl"]) == ("3", "1", "1", "1"), t
        assert int(t["index"]) > int(s["index"]) and int(t["term"]) >= 1, t
        assert int(t["uptime_ms"]) >= int(s["uptime_ms"])
        waiting = metrics(m)
        os.close(fd)
        assert waiter.wait(10) == 0
    assert waiting["holdfast_mount_waiters"].value() == 1
    assert [waiting["holdfast_mount_holds"].value(kind=k) for k in ("lease", "flock", "fcntl")] == [1, 1, 1]
    os.close(other)
    os.unlink(m.path("excl"))
    wait_until(lambda: status(m)["holds"] == "0")


def counts(m):
    t = status(m)
    return [int(t[k]) for k in ("leases", "flock", "fcntl", "waiters")]


LOCKER = """
import fcntl, os, random, sys
random.seed(int(sys.argv[2]))
OPS = [fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN]
fds = [os.open(sys.argv[1] + "/c%d" % i, os.O_CREAT | os.O_RDWR) for i in (0, 1, 2, 0, 1)]
print("on", flush=True)
while True:
    fd = random.randrange(len(fds))
    try:
        if random.random() < 0.5:
            fcntl.flock(fds[fd], random.choice(OPS))
        else:
            fcntl.lockf(fds[fd], random.choice(OPS), random.randrange(1, 5), random.randrange(8))
        if random.random() < 0.05:
            os.close(fds[fd])
            fds[fd] = os.open(sys.argv[1] + "/c%d" % random.randrange(3), os.O_CREAT | os.O_RDWR)
    except OSError:
        pass
"""


def test_counts(m):
    """They are kept, not made anew by a look at all locks: so whatever happens they must be right."""
    path = m.path("n")

    def opened(name="n"):
        return os.open(m.path(name), os.O_CREAT | os.O_RDWR)
    shared = [opened(), opened()]
    for fd in shared:
        fcntl.flock(fd, fcntl.LOCK_SH)
    assert counts(m) == [0, 2, 0, 0], counts(m)
    ranges = opened("r")
    fcntl.lockf(ranges, fcntl.LOCK_EX, 1, 0)
    fcntl.lockf(ranges, fcntl.LOCK_EX, 1, 10)
    assert counts(m) == [0, 2, 1, 0], counts(m)  # Owners, not ranges.
    fcntl.lockf(ranges, fcntl.LOCK_UN, 1, 0)
    assert counts(m) == [0, 2, 1, 0], counts(m)
    both = opened("b")
    fcntl.flock(both, fcntl.LOCK_EX)
    fcntl.lockf(both, fcntl.LOCK_EX)  # Leans on it.
    assert counts(m) == [0, 3, 2, 0], counts(m)
    fcntl.flock(both, fcntl.LOCK_UN)
    wait_until(lambda: counts(m) == [0, 2, 2, 0])
    excl = os.open(m.path("e"), os.O_CREAT | os.O_EXCL | os.O_RDWR)
    fcntl.flock(excl, fcntl.LOCK_EX)  # Adopts the lease.
    assert counts(m) == [1, 2, 2, 0], counts(m)
    with subprocess.Popen(["flock", path, "true"]) as waiter:
        wait_until(lambda: counts(m) == [1, 2, 2, 1])
        waiter.kill()
    wait_until(lambda: counts(m) == [1, 2, 2, 0])
    os.unlink(m.path("e"))
    for fd in (*shared, ranges, both, excl):
        os.close(fd)
    wait_until(lambda: counts(m) == [0, 0, 0, 0])
    workers = [subprocess.Popen([sys.executable, "-c", LOCKER, m.dir, str(i)], stdout=subprocess.PIPE)
               for i in range(3)]
    for w in workers:
        w.stdout.readline()
    for w in workers:
        time.sleep(0.5)
        assert sum(counts(m)) < 100
        w.kill()
        w.wait()
        w.stdout.close()
    wait_until(lambda: counts(m) == [0, 0, 0, 0])


def test_text_is_one_moment(m):
    """Read in small pieces, and from the start once more."""
    fd = os.open(control(m, "status"), os.O_RDONLY)
    first = b"".join(iter(lambda: os.read(fd, 7), b""))
    again = os.pread(fd, 65536, 0)
    assert first.count(b"\n") == again.count(b"\n") and first.endswith(b"\n")
    assert os.pread(fd, 10, 5) == again[5:15] and os.pread(fd, 10, 100000) == b""
    assert select.select([fd], [], [], 0)[0] == [fd]
    os.close(fd)
    # Not from the start.
    fd = os.open(control(m, "sessions"), os.O_RDONLY)
    assert os.pread(fd, 4, 4).startswith(b"ion=")
    os.close(fd)


def test_sessions_and_members(m):
    sessions = fields.lines(read(m, "sessions"))
    own = [s for s in sessions if s["own"] == b"yes"]
    assert len(own) == 1 and own[0]["session"].decode() == status(m)["session"], sessions
    assert own[0]["lapsed"] == b"no" and int(own[0]["remaining_ms"]) > 0

    def holds():
        return [int(s["holds"]) for s in fields.lines(read(m, "sessions")) if s["own"] == b"yes"]

    wait_until(lambda: holds() == [0])  # What the tests before gave back may still be on its way.
    fd = os.open(m.path("l"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert holds() == [1], holds()
    os.close(fd)
    wait_until(lambda: b"from=cluster" in read(m, "members"))
    members = fields.lines(read(m, "members"))
    assert [(x["member"], x["role"], x["leader"]) for x in members] == [(b"1", b"voter", b"yes")], members


def test_metrics(m):
    wait_until(lambda: status(m)["commands_pending"] == "0")
    before = metrics(m)
    assert before["holdfast_mount_info"].total(source="local", mount=m.dir) == 1
    take(m.path("x"))
    with fails("EEXIST"):
        take(m.path("x"))
    os.unlink(m.path("x"))
    with fails("ENOENT"):
        os.unlink(m.path("x"))
    after = metrics(m)

    def grown(family, suffix="", **labels):
        return after[family].value(suffix, **labels) - before[family].value(suffix, **labels)

    ops = "holdfast_mount_operations_total"
    assert grown(ops, operation="create", result="ok") == 1
    assert grown(ops, operation="unlink", result="ok") == 1
    assert grown(ops, operation="lookup", result="ENOENT") >= 2
    duration = "holdfast_client_request_duration_seconds"
    assert grown(duration, "_count", kind="command") == 2
    assert grown(duration, "_count", kind="query") >= 3
    assert grown(duration, "_sum", kind="command") > 0
    for family in before.values():  # Counters only grow.
        for key, value in family.samples.items():
            assert family.type == "gauge" or after[family.name].samples[key] >= value, (family.name, key)
    assert after["holdfast_mount_session_state"].value(state="open") == 1
    assert after["holdfast_mount_session_state"].total() == 1
    assert after["holdfast_mount_session_events_total"].value(event="opened") == 1
    assert after["holdfast_mount_operations_pending"].value() == 0
    assert after["process_resident_memory_bytes"].value() > 1e6
    assert abs(after["process_start_time_seconds"].value() - time.time()) < 3600


def test_interrupted_and_waiting_operations(m):
    """A blocked call is pending; its EINTR is counted as what it was."""
    fd = os.open(m.path("i"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    before = metrics(m)["holdfast_mount_operations_total"].value(operation="setlkw", result="EINTR")
    with subprocess.Popen(["flock", m.path("i"), "true"]) as waiter:
        wait_until(lambda: metrics(m)["holdfast_mount_waiters"].value() == 1)
        assert metrics(m)["holdfast_mount_operations_pending"].value() == 1
        waiter.terminate()
        waiter.wait(10)
    wait_until(lambda: metrics(m)["holdfast_mount_operations_pending"].value() == 0)
    after = metrics(m)["holdfast_mount_operations_total"].value(operation="setlkw", result="EINTR")
    assert after == before + 1, (before, after)
    os.close(fd)


def test_events(m):
    quiet(m)
    with Events(m, whole=True) as e:
        following = e.wait("following", **{"from": "mount"})
        fd = acquire(m.path("job"))
        granted = e.wait("granted", path="job", mode="exclusive", kind="excl", pid=os.getpid(), uid=os.getuid())
        assert int(granted["index"]) > int(following["index"])
        assert granted["token"] == os.getxattr(m.path("job"), "user.holdfast.token")
        os.write(fd, b"renew 90s")
        assert e.wait("renewed", path="job")["ttl_ms"] == b"90000"
        os.write(fd, b"a note")
        e.wait("noted", path="job", token=granted["token"].decode())
        os.close(fd)
        os.unlink(m.path("job"))
        e.wait("released", path="job", token=granted["token"].decode(), code="released")
        os.mkdir(m.path("dir"))
        e.wait("mkdir", path="dir")
        os.chmod(m.path("dir"), 0o700)
        e.wait("setattr", path="dir")
        a = os.open(m.path("dir", "f"), os.O_CREAT | os.O_RDWR)
        fcntl.lockf(a, fcntl.LOCK_SH, 5, 10)
        line = e.wait("granted", path="dir/f", mode="shared", kind="posix", range="10-14")
        assert b"ttl_ms" not in line
        with subprocess.Popen(["flock", m.path("dir", "f"), "true"]) as waiter:
            e.wait("waiting", path="dir/f", kind="flock", mode="exclusive")
            os.close(a)
            e.wait("released", path="dir/f", kind="posix")
            e.wait("granted", path="dir/f", kind="flock", waited="yes")
            waiter.wait(10)
        e.wait("released", path="dir/f", kind="flock")
        os.rmdir(m.path("dir"))
        e.wait("rmdir", path="dir")
        fd = acquire(m.path("short"))
        os.write(fd, b"renew 300ms")
        token = e.wait("granted", path="short")["token"].decode()
        # By our own deadline first; then by the cluster's.
        e.wait("lost", path="short", token=token, kind="lease", **{"from": "mount"})
        e.wait("expired", path="short", token=token, **{"from": "cluster"})
        os.close(fd)
    assert metrics(m)["holdfast_mount_lost_holds_total"].value(kind="lease") >= 1


def test_forged_lines(m):
    """No name of a lock can make a line, or a pair of its own."""
    names = [b"x\ntime=1 event=granted path=y", b'q" event="granted', b"b\\", b"sp ace", b"\x1b[2J", b"\xff\xfe",
             b"eq=ual", "\u00e4\u2028".encode(), b"\xc2\x9b"]
    with Events(m) as e:
        for name in names:
            path = os.fsencode(m.dir) + b"/" + name
            take(path)
            os.unlink(path)
        for name in names:
            e.more()
            wait_until(lambda n=name: e.more() is not None and
                       [x["event"] for x in e.seen if x.get("path") == n] == [b"granted", b"released"])


def test_events_from_the_end(m):
    """Who begins at the end sees only what comes."""
    with Events(m, whole=True) as first:
        first.wait("following") if os.fstat(first.fd).st_size == 0 else None
        take(m.path("old"))
        first.wait("granted", path="old")
        os.unlink(m.path("old"))
        first.wait("released", path="old")
        with Events(m) as second, Events(m, whole=True) as third:
            assert os.read(second.fd, 100) == b""
            take(m.path("new"))
            first.wait("granted", path="new")
            os.unlink(m.path("new"))
            second.wait("released", path="new")
            assert not [x for x in second.seen if x.get("path") == b"old"]
            third.wait("granted", path="old")
            third.wait("released", path="new")
            size = os.fstat(first.fd).st_size
            assert os.pread(first.fd, 1 << 20, 0) == os.pread(third.fd, 1 << 20, 0)
            assert len(os.pread(first.fd, 1 << 21, 0)) == size
            assert os.pread(first.fd, 100, size) == b"" and os.pread(first.fd, 100, size + 1000) == b""


def test_events_poll(m):
    """poll, select and epoll sleep at the end, and wake for a line."""
    with Events(m) as e:
        e.more()
        wait_until(lambda: e.more() == [])
        epoll = select.epoll()
        epoll.register(e.fd, select.EPOLLIN)
        for n in range(20):
            name = m.path("poll%d" % n)
            assert epoll.poll(0) == [] and select.select([e.fd], [], [], 0)[0] == []
            with subprocess.Popen(["sh", "-c", "sleep 0.05; : > '%s'; set -C; : > '%s'" % (name, name)],
                                  stderr=subprocess.DEVNULL) as child:
                if n % 2:
                    assert epoll.poll(10) == [(e.fd, select.EPOLLIN)]
                else:
                    assert select.select([e.fd], [], [], 10)[0] == [e.fd]
                child.wait(10)
            e.wait("granted", path="poll%d" % n)
            os.unlink(name)
            e.wait("released", path="poll%d" % n)
            wait_until(lambda: e.more() == [])
        epoll.close()


def tail(m, *arguments):
    return subprocess.Popen(["tail", *arguments, control(m, "events")], stdout=subprocess.PIPE)


def lines_until(process, word):
    found = []
    for line in process.stdout:
        found.append(fields.fields(line.rstrip(b"\n")))
        if found[-1].get("path") == word:
            return found
    raise AssertionError("tail ended: %r" % found)


def test_tail(m):
    """coreutils' tail, as people use it."""
    quiet(m)
    with tail(m, "-f") as follow:
        wait_until(lambda: os.stat(control(m, "events")).st_size > 0)
        for n in range(30):
            os.close(acquire(m.path("t%d" % n)))
        lines_until(follow, b"t29")
        out = subprocess.run(["tail", "-n", "3", control(m, "events")], check=True, capture_output=True).stdout
        assert [x["path"] for x in fields.lines(out)] == [b"t27", b"t28", b"t29"], out
        out = subprocess.run(["cat", control(m, "events")], check=True, capture_output=True).stdout
        assert [x["path"] for x in fields.lines(out) if x["event"] == b"granted"] == [b"t%d" % n for n in range(30)]
        with tail(m, "-n", "0", "-f") as new:
            for n in range(30):
                os.unlink(m.path("t%d" % n))
                if n == 0:
                    time.sleep(1.5)
            later = lines_until(new, b"t29")
            assert {x["event"] for x in later} == {b"released"} and len(later) <= 30, later
            new.terminate()
        follow.terminate()


def test_log_ends(m):
    """A little after the last close it is over; the next one begins anew."""
    quiet(m)
    with Events(m, whole=True) as e:
        e.wait("following")
        take(m.path("a"))
        e.wait("granted", path="a")
        os.unlink(m.path("a"))
    with Events(m, whole=True) as e:  # Within the moment: nothing is missed.
        e.wait("granted", path="a")
        e.wait("released", path="a")
    quiet(m)
    take(m.path("b"))
    os.unlink(m.path("b"))
    with Events(m, whole=True) as e:
        e.wait("following")
        take(m.path("c"))
        e.wait("granted", path="c")
        os.unlink(m.path("c"))
        assert not [x for x in e.seen if x.get("path") in (b"a", b"b")], e.seen


def test_fallen_behind(m):
    """A reader that is too slow is told what it has missed, and no line is torn."""
    quiet(m)
    with Events(m, whole=True) as slow, Events(m, whole=True) as fast:
        slow.wait("following")
        half = os.pread(slow.fd, 50, 0)
        assert os.read(slow.fd, 0) == b"" and len(half) == 50
        # Bytes that take four each in a line, so that fewer lines will do.
        fd = os.open(os.fsencode(m.dir) + b"/" + b"\xff" * 250, os.O_CREAT | os.O_RDWR)
        while os.fstat(fast.fd).st_size < 3 << 20:
            for _ in range(100):
                fcntl.flock(fd, fcntl.LOCK_EX)
                fcntl.flock(fd, fcntl.LOCK_UN)
            fast.more()
        os.close(fd)
        for reader in (slow, fast):
            wait_until(lambda r=reader: not r.more())
        assert not [x for x in fast.seen if x["event"] == b"gap"]
        gaps = [x for x in slow.seen if x["event"] == b"gap"]
        assert len(gaps) == 1 and int(gaps[0]["bytes"]) > 1 << 20, gaps
        rest = slow.seen[slow.seen.index(gaps[0]) + 1:]
        assert rest == fast.seen[-len(rest):]
        with Events(m, whole=True) as late:  # From a beginning that is not there any more.
            late.more(1000)
            assert late.seen[0]["event"] == b"gap" and late.seen[1:] == rest[-(len(late.seen) - 1):]
        out = subprocess.run(["tail", "-n", "100000", control(m, "events")], check=True, capture_output=True).stdout
        assert fields.lines(out)[-1] == rest[-1]
