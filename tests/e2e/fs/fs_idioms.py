"""mkdir NAME.lock, symlink, link, rename: the other habits of locking by files."""
import ctypes
import errno
import fcntl
import os
import select
import shutil
import stat
import subprocess
import threading
import time

from mountlib import NOBODY, Helper, acquire, fails, in_child, say, show, take

OPTIONS = "ttl=60s"
LIBC = ctypes.CDLL(None, use_errno=True)


def renameat2(old, new, flags):
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def token(p):
    return int(os.getxattr(p, "user.holdfast.token", follow_symlinks=False))


def shell(script, *args, check=True):
    return subprocess.run(["bash", "-c", script, "x", *args], check=check, capture_output=True, text=True)


def refuse_dir(p):
    with fails("EEXIST"):
        os.mkdir(p)


def test_mkdir(m):
    for name in ("dir.lock", "dir.lck", ".a.lock"):
        p = m.path(name)
        os.mkdir(p, 0o755)
        st = os.lstat(p)
        assert stat.S_ISDIR(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o755, oct(st.st_mode)
        assert st.st_nlink == 2 and st.st_size == 0
        assert os.listdir(p) == []
        out = subprocess.run(["ls", "-la", p], check=True, capture_output=True, text=True).stdout.splitlines()
        assert [line.split()[-1] for line in out[1:]] == [".", ".."], out
        with os.scandir(m.dir) as entries:
            assert [e.is_dir(follow_symlinks=False) for e in entries if e.name == name] == [True]
        assert os.getxattr(p, "user.holdfast.mode") == b"exclusive"
        with fails("EEXIST"):
            os.mkdir(p)
        in_child(lambda p=p: refuse_dir(p))
        with fails("EEXIST"):
            acquire(p)
        os.rmdir(p)
        with fails("ENOENT"):
            os.rmdir(p)
        with fails("ENOENT"):
            os.stat(p)
        take(p)  # A lock by the other habit.
        with fails("EEXIST"):
            os.mkdir(p)
        with fails("ENOTDIR"):
            os.rmdir(p)
        os.unlink(p)
    os.mkdir(m.path("dir.lock"))
    with fails("EISDIR"):
        os.unlink(m.path("dir.lock"))
    os.rmdir(m.path("dir.lock"))


def test_mkdir_names(m):
    """Others than NAME.lock and NAME.lck are directories that are replicated."""
    for name in ("plain", ".lock", ".lck", "lock", "x.locks", "x.lock.d"):
        p = m.path(name)
        os.mkdir(p)
        take(os.path.join(p, "x"))
        with fails("ENOTEMPTY"):
            os.rmdir(p)
        os.unlink(os.path.join(p, "x"))
        with fails("ENODATA"):
            token(p)
        os.rmdir(p)


def test_mkdir_below(m):
    """Nothing can be made in such a directory."""
    p = m.path("below.lock")
    os.mkdir(p)
    x = os.path.join(p, "x")
    take(m.path("below"))
    for refused in (lambda: acquire(x), lambda: os.open(x, os.O_CREAT | os.O_RDWR), lambda: os.mkdir(x),
                    lambda: os.symlink("text", x), lambda: os.mkdir(x + ".lock"),
                    lambda: os.link(m.path("below"), x), lambda: os.rename(m.path("below"), x)):
        with fails("EPERM"):
            refused()
    with fails("ENOENT"):
        os.stat(x)
    with fails("ENOENT"):
        os.unlink(x)
    os.unlink(m.path("below"))
    shutil.rmtree(p)
    with fails("ENOENT"):
        os.stat(p)


def test_mkdir_times(m):
    """proper-lockfile sets a time to the millisecond, and compares what stat(2) says later."""
    p = m.path("times.lock")
    os.mkdir(p)
    first = os.stat(p).st_mtime_ns
    assert abs(first - time.time_ns()) < 60e9
    for _ in range(20):
        assert os.stat(p).st_mtime_ns == first
    for t in (1700000000005000000, 1700000001000000000, 1700000000004999876, 1, time.time_ns()):
        os.utime(p, ns=(t, t))
        assert os.stat(p).st_mtime_ns == t
        time.sleep(0.03)
        assert os.stat(p).st_mtime_ns == t
    os.utime(p, ns=(0, 0))
    assert int(os.stat(p).st_mtime) == 0
    os.utime(p, ns=(-5000000000, -5000000000))
    assert int(os.stat(p).st_mtime) == 0
    subprocess.run(["touch", p], check=True)
    now = os.stat(p).st_mtime_ns
    assert abs(now - time.time_ns()) < 60e9
    time.sleep(0.03)
    assert os.stat(p).st_mtime_ns == now
    os.setxattr(p, "user.holdfast.ttl_ms", b"50000")
    assert os.stat(p).st_mtime_ns == now
    os.rmdir(p)
    take(m.path("times"))
    os.utime(m.path("times"), ns=(5000000001, 5000000001))
    assert os.stat(m.path("times")).st_mtime_ns == 5000000001
    subprocess.run(["touch", m.path("times")], check=True)
    assert abs(os.stat(m.path("times")).st_mtime - time.time()) < 60
    os.unlink(m.path("times"))


def test_mkdir_lease(m):
    p = m.path("lease.lock")
    os.mkdir(p)
    os.setxattr(p, "user.holdfast.ttl_ms", b"400")
    assert int(os.getxattr(p, "user.holdfast.remaining_ms")) <= 400
    for _ in range(6):
        time.sleep(0.15)
        os.utime(p)
    time.sleep(0.6)
    with fails("ENOENT"):
        os.stat(p)
    with fails("ENOENT"):
        os.rmdir(p)
    with fails("ENOENT"):
        os.utime(p)
    os.mkdir(p)
    os.rmdir(p)


def test_authority(m):
    """Each of them belongs to the process and its heirs, as O_EXCL does."""
    p, q = m.path("authority.lock"), m.path("elsewhere")
    idioms = (("mkdir %s" % p, "rmdir %s" % p),
              ("ln -s text %s" % p, "rm %s" % p),
              ("set -C; : > %s.tmp; ln %s.tmp %s; rm %s.tmp" % (p, p, p, p), "rm -f %s" % p))
    with Helper(stranger=True) as other:
        for take_it, drop_it in idioms:
            with Helper(stranger=True) as owner:
                owner.ok(take_it)
                for refused in (drop_it, "mv -T %s %s" % (p, q), "touch -h %s" % p):
                    other.refused(refused, "not permitted")
                if "mkdir" not in take_it:
                    other.refused("ln -P %s %s" % (p, q), "not permitted")
                owner.ok("touch -h %s" % p)
                owner.ok("mv -T %s %s && mv -T %s %s" % (p, q, q, p))
                owner.ok(drop_it)
                owner.refused("ls -d %s" % p, "No such file")
    os.mkdir(p)
    in_child(lambda: os.rmdir(p))  # A descendant.
    with Helper() as owner:
        owner.ok("mkdir %s" % p)
        with fails("EPERM"):
            os.rmdir(p)
    os.rmdir(p)  # The shell is gone: we are its nearest living ancestor.
    os.mkdir(p, 0o777)
    os.chmod(m.dir, 0o777)
    in_child(lambda: other_user(p, q), uid=NOBODY)
    os.chmod(m.dir, 0o1777)
    os.rmdir(p)


def other_user(p, q):
    for refused in (lambda: os.rmdir(p), lambda: os.rename(p, q), lambda: os.utime(p, None)):
        with fails("EPERM", "EACCES"):
            refused()


def test_symlink(m):
    p = m.path("sym")
    text = "user@host.1234:1700000000"
    os.symlink(text, p)
    st = os.lstat(p)
    assert stat.S_ISLNK(st.st_mode) and st.st_size == len(text) and st.st_nlink == 1
    assert os.readlink(p) == text
    with fails("ENOENT"):
        os.stat(p)
    for refused in (lambda: os.symlink("x", p), lambda: acquire(p), lambda: os.mkdir(p)):
        with fails("EEXIST"):
            refused()
    with os.scandir(m.dir) as entries:
        assert [e.is_symlink() for e in entries if e.name == "sym"] == [True]
    with fails("ENODATA"):
        token(p)  # So Linux has it: symbolic links have no attributes of this kind.
    time.sleep(0.05)
    os.utime(p, follow_symlinks=False)
    assert os.lstat(p).st_ctime_ns >= st.st_ctime_ns + 40000000  # It was renewed.
    os.unlink(p)
    with fails("ENOENT"):
        os.readlink(p)
    os.symlink("x" * 256, p)
    assert os.readlink(p) == "x" * 256
    os.unlink(p)
    with fails("ENAMETOOLONG"):
        os.symlink("x" * 257, p)
    odd = b"\xff\\ \n="
    os.symlink(odd, os.fsencode(p))
    assert os.readlink(os.fsencode(p)) == odd
    os.unlink(p)
    take(p)
    with fails("EEXIST"):
        os.symlink("text", p)
    with fails("EINVAL"):
        os.readlink(p)
    os.unlink(p)


def test_dot_lock(m):
    """As liblockfile, procmail and mutt do it: link, then compare inode numbers or count links."""
    tmp, lock = m.path("tmp.123"), m.path("mbox.lock")
    fd = acquire(tmp)
    os.write(fd, b"123\n")
    os.close(fd)
    assert os.stat(tmp).st_nlink == 1
    os.link(tmp, lock)
    a, b = os.lstat(tmp), os.lstat(lock)
    assert (a.st_dev, a.st_ino, a.st_nlink) == (b.st_dev, b.st_ino, 2) and a.st_nlink == 2
    assert (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
    with os.scandir(m.dir) as entries:
        assert {e.inode() for e in entries if e.name in ("tmp.123", "mbox.lock")} == {a.st_ino}
    assert token(lock) > token(tmp) and show(lock)["owner"] == show(tmp)["owner"]
    assert show(lock)["note"] == "123"
    with fails("EEXIST"):
        os.link(tmp, lock)
    os.unlink(tmp)
    c = os.lstat(lock)
    assert (c.st_ino, c.st_nlink) == (a.st_ino, 1)
    with fails("EEXIST"):
        acquire(lock)
    os.utime(lock)
    assert os.lstat(lock).st_ino == a.st_ino
    os.unlink(lock)
    with fails("ENOENT"):
        os.stat(lock)


def test_dot_lock_held(m):
    tmp, lock = m.path("tmp.1"), m.path("held.lock")
    os.mkdir(lock)
    take(tmp)
    with fails("EEXIST"):
        os.link(tmp, lock)
    assert os.stat(tmp).st_nlink == 1
    os.rmdir(lock)
    os.link(tmp, lock)
    os.unlink(lock)  # The other one first.
    assert os.stat(tmp).st_nlink == 1
    os.link(tmp, lock)
    assert os.stat(tmp).st_nlink == 2
    os.unlink(tmp)
    os.unlink(lock)
    with fails("ENOENT"):
        os.link(tmp, lock)
    fd = os.open(tmp, os.O_CREAT | os.O_WRONLY)  # Not held: there is no such file.
    with fails("ENOENT"):
        os.link(tmp, lock)
    os.close(fd)


def test_link_handle(m):
    """The descriptor that acquired the first name acts on that, as long as it is there."""
    tmp, lock = m.path("h.tmp"), m.path("h.lock")
    fd = acquire(tmp)
    os.link(tmp, lock)
    assert os.fstat(fd).st_nlink == 2
    os.write(fd, b"renew\n")
    os.unlink(tmp)
    os.unlink(lock)
    assert os.fstat(fd).st_nlink == 0
    with fails("ESTALE"):
        os.write(fd, b"renew\n")
    os.close(fd)


def test_link_refused(m):
    os.mkdir(m.path("l.lock"))
    with fails("EPERM"):
        os.link(m.path("l.lock"), m.path("l2"))
    os.rmdir(m.path("l.lock"))
    os.symlink("text", m.path("l"))
    os.link(m.path("l"), m.path("l2"), follow_symlinks=False)
    assert os.readlink(m.path("l2")) == "text"
    os.unlink(m.path("l"))
    assert os.readlink(m.path("l2")) == "text"
    os.unlink(m.path("l2"))
    take(m.path("l"))
    os.mkdir(m.path("l2"))
    with fails("EEXIST"):
        os.link(m.path("l"), m.path("l2"))
    os.link(m.path("l"), m.path("l2", "l"))
    os.unlink(m.path("l2", "l"))
    os.rmdir(m.path("l2"))
    os.unlink(m.path("l"))


def test_rename(m):
    a, b = m.path("ra"), m.path("rb")
    fd = acquire(a)
    os.write(fd, b"a note\n")
    t, ino = token(a), os.stat(a).st_ino
    os.rename(a, b)
    with fails("ENOENT"):
        os.stat(a)
    assert (token(b), os.stat(b).st_ino, os.fstat(fd).st_ino, os.fstat(fd).st_nlink) == (t, ino, ino, 1)
    assert show(b)["note"] == "a note"
    os.write(fd, b"renew 50s\n")
    assert show(b)["ttl_ms"] == "50000"
    assert b"note=a note" in os.pread(fd, 4096, 0)
    take(a)  # The old name is free.
    with fails("EEXIST"):
        os.rename(a, b)
    with fails("EEXIST"):
        renameat2(a, b, 1)
    for flags in (2, 4):
        with fails("EINVAL"):
            renameat2(a, b, flags)
    os.unlink(a)
    renameat2(b, a, 1)
    os.utime(fd)
    os.mkdir(m.path("rd"))
    with fails("EISDIR", "EEXIST"):
        os.rename(a, m.path("rd"))
    os.rename(a, m.path("rd", "x"))
    os.write(fd, b"renew\n")
    with fails("ENOTEMPTY"):
        os.rmdir(m.path("rd"))
    os.unlink(m.path("rd", "x"))
    with fails("ESTALE"):
        os.write(fd, b"renew\n")
    os.rmdir(m.path("rd"))
    with fails("ENOENT"):
        os.rename(a, b)
    os.close(fd)


def test_rename_directories(m):
    os.mkdir(m.path("d1"))
    with fails("EPERM"):
        os.rename(m.path("d1"), m.path("d2"))
    os.rmdir(m.path("d1"))
    os.mkdir(m.path("d.lock"))
    os.rename(m.path("d.lock"), m.path("d2"))  # A lock, whatever it looks like.
    assert stat.S_ISDIR(os.stat(m.path("d2")).st_mode)
    with fails("EEXIST"):
        os.mkdir(m.path("d2"))
    with fails("EPERM"):
        acquire(m.path("d2", "x"))
    os.mkdir(m.path("d.lock"))
    os.rmdir(m.path("d.lock"))
    os.rmdir(m.path("d2"))
    os.symlink("text", m.path("s"))
    os.rename(m.path("s"), m.path("s2"))
    assert os.readlink(m.path("s2")) == "text"
    os.unlink(m.path("s2"))


def test_rename_kept(m):
    """The daemon renews it under its new name, and releases it there when the process ends."""
    p, q = m.path("kept"), m.path("kept2")
    with Helper() as h:
        h.ok("set -C; exec 9>%s; echo renew 300ms >&9; echo keep >&9" % p)
        h.ok("mv %s %s" % (p, q))
        time.sleep(1)
        assert int(show(q)["remaining_ms"]) > 0
        h.ok("mv %s %s; mv %s %s" % (q, p, p, q))
        time.sleep(0.5)
        h.ok("echo renew >&9")
    for _ in range(200):
        if not os.path.exists(q):
            break
        time.sleep(0.01)
    else:
        raise AssertionError("still held")


def test_rename_linked(m):
    """mv of one of two names; the other stays."""
    take(m.path("t1"))
    os.link(m.path("t1"), m.path("t2"))
    os.rename(m.path("t2"), m.path("t3"))
    assert os.stat(m.path("t1")).st_ino == os.stat(m.path("t3")).st_ino
    assert os.stat(m.path("t3")).st_nlink == 2
    os.unlink(m.path("t1"))
    os.unlink(m.path("t3"))


def test_flock_and_rename(m):
    p, q = m.path("fl"), m.path("fl2")
    fd = os.open(p, os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with fails("EBUSY"):
        os.rename(p, q)
    with fails("EPERM"):
        os.link(p, q)
    os.close(fd)
    fd = acquire(p)
    fcntl.flock(fd, fcntl.LOCK_EX)  # It relies on the lease.
    os.rename(p, q)
    fcntl.flock(fd, fcntl.LOCK_UN)
    fcntl.flock(fd, fcntl.LOCK_EX)
    fd2 = os.open(q, os.O_RDWR)
    with fails("EAGAIN"):
        fcntl.flock(fd2, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fd3 = os.open(p, os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd3, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for f in (fd, fd2, fd3):
        os.close(f)
    os.unlink(q)


def test_waiter_and_rename(m):
    """Another process waits by fcntl through the inherited descriptor: it gets the name that it asked for, and gives
    it back by its close though the file has got another name."""
    p, q = m.path("w1"), m.path("w2")
    fd = acquire(p)
    fcntl.lockf(fd, fcntl.LOCK_EX)  # Relies on the lease.
    begin, go = os.pipe()
    is_told, told = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX)
            os.write(told, b"x")
            os.read(begin, 1)
            os.close(fd)
            os.write(told, b"x")
            os.read(begin, 1)
            status = 0
        finally:
            os._exit(status)
    time.sleep(0.3)
    os.rename(p, q)
    os.read(is_told, 1)
    other = os.open(p, os.O_CREAT | os.O_RDWR)
    with fails("EAGAIN", "EACCES"):
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(go, b"x")
    os.read(is_told, 1)
    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(go, b"x")
    assert os.waitpid(child, 0)[1] == 0
    for f in (other, fd, begin, go, is_told, told):
        os.close(f)
    os.unlink(q)


def test_poll_and_rename(m):
    """Who polls a lease hears that it is wanted under its new name."""
    p, q = m.path("p1"), m.path("p2")
    fd = acquire(p)
    waiter = []

    def rename():
        time.sleep(0.3)
        os.rename(p, q)
        waiter.append(subprocess.Popen(["flock", q, "true"]))

    thread = threading.Thread(target=rename)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == []
    thread.start()
    assert poll.poll(20000) == [(fd, select.POLLIN)]
    thread.join()
    os.unlink(q)
    assert waiter[0].wait(20) == 0
    os.close(fd)


def test_link_of_a_successor(m):
    """An open file whose lease is over is not the one that has its name now."""
    tmp, lock = m.path("s.tmp"), m.path("s.lock")
    fd = acquire(tmp)
    os.write(fd, b"release\n")
    take(tmp)
    assert LIBC.linkat(-100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(lock), 0x400) < 0  # AT_SYMLINK_FOLLOW
    assert ctypes.get_errno() == errno.ENOENT
    with fails("ENOENT"):
        os.stat(lock)
    assert os.stat(tmp).st_nlink == 1
    os.unlink(tmp)
    os.close(fd)


def test_shell(m):
    """cp, mv, ln, mkdir, rmdir, touch, rm as they come."""
    base = m.path("sh")
    os.mkdir(base)
    source = os.path.join(m.base, "source")
    with open(source, "w", encoding="utf-8") as f:
        f.write("from a file\n")
    shell("""set -e; cd "$1"
        cp "$2" copied; grep -q 'note=from a file' copied; ! cp -n "$2" copied/ 2>/dev/null
        mv copied moved; grep -q 'note=from a file' moved; test ! -e copied
        ln moved linked; test moved -ef linked; ! ln moved linked 2>/dev/null; rm moved
        grep -q 'note=from a file' linked; rm linked
        ln -s some/text link; test "$(readlink link)" = some/text; test -L link
        ! ln -s other link 2>/dev/null; rm link
        mkdir a.lock; ! mkdir a.lock 2>/dev/null; test -d a.lock; touch a.lock; mkdir -p a.lock
        touch -d '2020-01-02 03:04:05 UTC' a.lock; test "$(stat -c %Y a.lock)" = 1577934245
        mv a.lock b.lock; rmdir b.lock; ! rmdir b.lock 2>/dev/null
        mkdir -m 700 c.lck; test "$(stat -c %a c.lck)" = 700; rm -r c.lck
        mkdir d; mkdir d/e.lock; ! rmdir d 2>/dev/null; rm -rf d; test ! -e d
        test -z "$(ls -A)" """, base, source)
    os.rmdir(base)


def test_race(m):
    """Many processes, one lock, each habit: never two inside."""
    counter = os.path.join(m.base, "count")
    lock = m.path("race.lock")
    take_it = {"mkdir": ("mkdir $1", "rmdir $1"), "symlink": ("ln -s $$ $1", "rm $1"),
               "link": ("ln $1.$$ $1", "rm $1")}
    for prepare in ("mkdir", "symlink", "link"):
        with open(counter, "w", encoding="utf-8") as f:
            f.write("0\n")
        get, put = take_it[prepare]
        script = """i=0; [ %s != link ] || ( set -C; : > $1.$$ )
            while [ $i -lt 10 ]; do
                if %s 2>/dev/null; then
                    n=$(cat "$2"); echo $((n + 1)) > "$2"; i=$((i + 1)); %s || exit 1
                fi
            done; rm -f $1.$$""" % (prepare, get, put)
        workers = [subprocess.Popen(["dash", "-c", script, "x", lock, counter]) for _ in range(4)]
        assert [w.wait(60) for w in workers] == [0] * 4, prepare
        with open(counter, encoding="utf-8") as f:
            assert int(f.read()) == 40, prepare


def test_say(m):
    """A note on one of two names is that name's."""
    take(m.path("n1"))
    say(m.path("n1"), "one")
    os.link(m.path("n1"), m.path("n2"))
    say(m.path("n2"), "two")
    assert (show(m.path("n1"))["note"], show(m.path("n2"))["note"]) == ("one", "two")
    os.unlink(m.path("n1"))
    os.unlink(m.path("n2"))
