"""Directories: name spaces with modes."""
import os
import shutil
import subprocess
import tempfile
import threading
import time

from mountlib import NOBODY, Mount, Node, acquire, fails, in_child, take

OPTIONS = "dircache=0"


def test_life(m):
    d = m.path("life")
    os.mkdir(d, 0o751)
    st = os.stat(d)
    assert st.st_mode == 0o40751 and (st.st_uid, st.st_gid) == (0, 0)
    assert st.st_ino == os.stat(d).st_ino
    with fails("EEXIST"):
        os.mkdir(d)
    os.mkdir(d + "/sub")
    with fails("ENOTEMPTY"):
        os.rmdir(d)
    os.rmdir(d + "/sub")
    take(d + "/lock")
    with fails("ENOTEMPTY"):
        os.rmdir(d)
    with fails("ENOTDIR"):
        os.rmdir(d + "/lock")
    with fails("EISDIR"):
        os.unlink(d)
    os.unlink(d + "/lock")
    os.rmdir(d)
    with fails("ENOENT"):
        os.rmdir(d)
    with fails("ENOENT"):
        os.mkdir(d + "/sub")
    os.mkdir(d)
    assert os.stat(d).st_ino != st.st_ino
    os.rmdir(d)


def test_removed(m):
    """Who has a removed directory open changes nothing of the one that has its name now."""
    d = m.path("removed")
    os.chmod(m.dir, 0o1777)

    def stranger():
        os.mkdir(d, 0o700)
        return os.open(d, os.O_RDONLY | os.O_DIRECTORY)

    def act():
        fd = stranger()
        os.rmdir(d)
        os.write(told, b"x")
        os.read(go, 1)
        for refused in (lambda: os.fchmod(fd, 0o777), lambda: os.open("x", os.O_CREAT | os.O_EXCL, dir_fd=fd)):
            with fails("ENOENT"):
                refused()

    is_told, told = os.pipe()
    go, say_go = os.pipe()

    def ours():
        os.read(is_told, 1)
        os.mkdir(d, 0o700)
        os.write(say_go, b"x")

    thread = threading.Thread(target=ours)
    thread.start()
    in_child(act, NOBODY)
    thread.join()
    st = os.stat(d)
    assert (st.st_mode, st.st_uid) == (0o40700, 0), oct(st.st_mode)
    os.rmdir(d)
    for fd in (is_told, told, go, say_go):
        os.close(fd)


def test_default_caching(_m):
    """A mode that another mount changes counts here for the mount's root too, and soon."""
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    os.chmod(base, 0o755)
    node = Node(base)
    try:
        os.mkdir(base + "/1")
        os.mkdir(base + "/2")
        with Mount("", node.address, base + "/1") as a, Mount("", node.address, base + "/2") as b:
            os.chmod(b.dir, 0o1777)
            os.mkdir(b.path("d"), 0o777)
            os.chmod(b.path("d"), 0o777)

            def use(refused):
                for p in (a.path("x"), a.path("d", "x")):
                    if refused:
                        with fails("EACCES"):
                            acquire(p)
                    else:
                        take(p)
                        os.unlink(p)

            for _ in range(3):
                in_child(lambda: use(False), NOBODY)
                os.chmod(b.path("d"), 0o755)
                os.chmod(b.dir, 0o755)
                time.sleep(0.02)
                in_child(lambda: use(True), NOBODY)
                os.chmod(b.path("d"), 0o777)
                os.chmod(b.dir, 0o1777)
                time.sleep(0.02)
    finally:
        node.close()
        shutil.rmtree(base)


def test_attributes(m):
    d = m.path("attributes")
    os.mkdir(d)
    os.chmod(d, 0o1770)
    assert os.stat(d).st_mode == 0o41770
    os.chown(d, 12, 34)
    os.chown(d, -1, 35)
    assert (os.stat(d).st_uid, os.stat(d).st_gid) == (12, 35)
    with fails("EPERM"):
        os.utime(d)

    def other():
        with fails("EPERM"):
            os.chmod(d, 0o777)
        with fails("EPERM"):
            os.chown(d, NOBODY, NOBODY)

    in_child(other, NOBODY)
    os.rmdir(d)


def test_umask_and_setgid(m):
    d = m.path("setgid")
    old = os.umask(0o027)
    try:
        os.mkdir(d, 0o777)
    finally:
        os.umask(old)
    assert os.stat(d).st_mode == 0o40750
    os.chown(d, 0, 77)
    os.chmod(d, 0o2777)
    os.mkdir(d + "/sub", 0o755)
    assert os.stat(d + "/sub").st_mode == 0o42755 and os.stat(d + "/sub").st_gid == 77
    take(d + "/lock")
    assert os.stat(d + "/lock").st_gid == 77
    os.unlink(d + "/lock")
    os.rmdir(d + "/sub")
    os.rmdir(d)


def test_enforced(m):
    d = m.path("private")
    os.mkdir(d, 0o700)
    take(d + "/lock")

    def other():
        with fails("EACCES"):
            acquire(d + "/x")
        with fails("EACCES"):
            os.stat(d + "/lock")
        with fails("EACCES"):
            os.listdir(d)
        with fails("EACCES"):
            os.unlink(d + "/lock")

    def reader():
        os.stat(d + "/lock")
        assert os.listdir(d) == ["lock"]
        with fails("EACCES"):
            acquire(d + "/x")
        with fails("EACCES"):
            os.unlink(d + "/lock")

    in_child(other, NOBODY)
    os.chmod(d, 0o755)
    in_child(reader, NOBODY)
    os.unlink(d + "/lock")
    os.rmdir(d)


def test_sticky_root(m):
    """01777, like /tmp: everybody may lock, nobody may take another's away."""
    p = m.path("sticky")
    take(p)

    def other():
        take(m.path("sticky-other"))
        os.unlink(m.path("sticky-other"))
        with fails("EPERM"):
            os.unlink(p)

    in_child(other, NOBODY)
    os.unlink(p)


def test_listing(m):
    d = m.path("big")
    os.mkdir(d)
    names = {"lock-%05d" % i for i in range(2600)}
    for name in names:
        take(d + "/" + name)
    os.mkdir(d + "/sub")
    listed = os.listdir(d)
    assert len(listed) == len(set(listed)) and set(listed) == names | {"sub"}
    out = subprocess.run(["ls", "-a", d], check=True, capture_output=True, text=True).stdout.split()
    assert set(out) == names | {"sub", ".", ".."}
    kinds = {e.name: (e.is_dir(follow_symlinks=False), e.inode()) for e in os.scandir(d)}
    assert kinds["sub"] == (True, os.stat(d + "/sub").st_ino)
    assert kinds["lock-02599"] == (False, os.stat(d + "/lock-02599").st_ino)
    # Taking names away while reading shifts nothing.
    seen = set()
    for e in os.scandir(d):
        seen.add(e.name)
        if e.name != "sub":
            os.unlink(d + "/" + e.name)
    assert seen == names | {"sub"}
    assert os.listdir(d) == ["sub"]
    subprocess.run(["rm", "-r", d], check=True)


def test_seek(m):
    """seekdir() and rewinddir() across pages."""
    d = m.path("seek")
    os.mkdir(d)
    for i in range(1500):
        take("%s/%04d" % (d, i))
    script = r"""
opendir(my $d, $ARGV[0]) or die; my (@name, @at);
while (1) { my $p = telldir($d); my $n = readdir($d); last unless defined $n; push @name, $n; push @at, $p; }
die scalar(@name) unless @name == 1502;
for my $i (1400, 3, 1100, 1023, 1024, 1025, 1026, 1027, 0, 1501) {
    seekdir($d, $at[$i]); my $n = readdir($d); die "$i: $n, not $name[$i]" unless $n eq $name[$i];
}
rewinddir($d); my $n = () = readdir($d); die $n unless $n == 1502;
"""
    subprocess.run(["perl", "-e", script, d], check=True)
    for i in range(1500):
        os.unlink("%s/%04d" % (d, i))
    os.rmdir(d)
