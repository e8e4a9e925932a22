"""open(O_CREAT|O_EXCL) and its neighbours."""
import os
import subprocess

from mountlib import acquire, fails, in_child, say, show, take

OPTIONS = ""


def test_once(m):
    p = m.path("once")
    fd = acquire(p)
    with fails("EEXIST"):
        acquire(p)
    in_child(lambda: refuse(p))
    os.close(fd)
    with fails("EEXIST"):  # The lease outlives the descriptor.
        acquire(p)
    os.unlink(p)
    take(p)
    os.unlink(p)


def refuse(p):
    with fails("EEXIST"):
        acquire(p)


def test_noclobber(m):
    for shell in ("bash", "dash"):
        p = m.path("noclobber-" + shell)
        script = "( set -C; echo $$ > '%s' ) 2>/dev/null" % p
        assert subprocess.run([shell, "-c", script + " && cat '%s'" % p], check=True, capture_output=True,
                              text=True).stdout.splitlines()[-1].startswith("note=")
        assert subprocess.run([shell, "-c", script], check=False).returncode != 0
        # The acquiring shell is gone; this process is its nearest living ancestor.
        os.unlink(p)
        assert subprocess.run([shell, "-c", script + " && rm '%s'" % p], check=False).returncode == 0


def test_tokens_and_inodes(m):
    p = m.path("tokens")
    seen = []
    for _ in range(3):
        fd = acquire(p)
        token = int(show(p)["token"])
        number = os.stat(p).st_ino
        assert number == os.fstat(fd).st_ino == os.stat(p).st_ino
        assert (token, number) not in seen
        assert not seen or token > seen[-1][0]
        seen.append((token, number))
        os.unlink(p)
        assert os.fstat(fd).st_nlink == 0
        os.close(fd)
    assert len({number for _, number in seen}) == 3


def test_directory_in_the_way(m):
    p = m.path("directory")
    os.mkdir(p)
    with fails("EEXIST"):
        acquire(p)
    with fails("EISDIR"):
        os.open(p, os.O_CREAT | os.O_WRONLY)
    with fails("ENOTDIR"):
        take(m.path("directory2"))
        acquire(m.path("directory2", "x"))
    os.unlink(m.path("directory2"))
    os.rmdir(p)


def test_parent_deleted(m):
    p = m.path("parent")
    os.mkdir(p)
    fd = os.open(p, os.O_DIRECTORY)
    os.rmdir(p)
    with fails("ENOENT"):
        os.open("x", os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=fd)
    os.close(fd)
    with fails("ENOENT"):
        acquire(m.path("parent", "x"))


def test_names(m):
    with fails("ENAMETOOLONG"):
        acquire(m.path("n" * 256))
    take(m.path("n" * 255))
    os.unlink(m.path("n" * 255))
    odd = os.fsencode(m.dir) + b"/\x01\xff \n=\\"
    take(odd)
    assert os.path.basename(odd) in os.listdir(os.fsencode(m.dir))
    os.unlink(odd)
    with fails("EEXIST"):
        acquire(m.path(".holdfast"))  # fs_control.py.
    os.mkdir(m.path("sub"))
    with fails("EPERM"):
        acquire(m.path("sub", ".holdfast"))
    with fails("EPERM"):
        os.mkdir(m.path("sub", ".holdfast"))
    with fails("ENOENT"):
        os.stat(m.path("sub", ".holdfast"))
    os.rmdir(m.path("sub"))
    names = []
    for _ in range(15):
        names.append("d")
        os.mkdir(m.path(*names))
    take(m.path(*names, "lock"))
    os.unlink(m.path(*names, "lock"))
    os.mkdir(m.path(*names, "16"))
    with fails("ENAMETOOLONG"):
        acquire(m.path(*names, "16", "lock"))
    os.rmdir(m.path(*names, "16"))
    while names:
        os.rmdir(m.path(*names))
        names.pop()


def test_mode_owner_and_times(m):
    p = m.path("mode")
    old = os.umask(0o027)
    try:
        os.close(acquire(p, 0o666))
    finally:
        os.umask(old)
    st = os.stat(p)
    assert st.st_mode & 0o7777 == 0o640 and (st.st_uid, st.st_gid) == (0, 0)
    assert st.st_size == 0 and st.st_nlink == 1
    assert abs(st.st_mtime - os.stat("/proc/self").st_mtime) < 60
    os.unlink(p)


def test_free_lock(m):
    """O_CREAT without O_EXCL: a handle, and nothing in the cluster."""
    p = m.path("free")
    fd = os.open(p, os.O_CREAT | os.O_RDWR)
    fd2 = os.open(p, os.O_CREAT | os.O_RDWR)
    assert os.fstat(fd).st_ino == os.fstat(fd2).st_ino
    assert os.read(fd, 100) == b""
    with fails("ENOENT"):
        os.stat(p)
    with fails("ENOENT"):
        os.write(fd, b"renew\n")
    with fails("ENOENT"):
        os.write(fd, b"a note\n")
    with fails("ENOENT"):
        os.utime(fd)
    os.ftruncate(fd, 0)
    assert "free" not in os.listdir(m.dir)
    take(p)  # Somebody locks it: the handle sees that.
    assert b"token=" in os.pread(fd, 4096, 0)
    os.write(fd, b"renew\n")  # It is ours.
    os.unlink(p)
    assert os.pread(fd, 4096, 0) == b""
    os.close(fd)
    os.close(fd2)


def test_open_held(m):
    p = m.path("held")
    take(p)
    for flags in (os.O_RDONLY, os.O_CREAT | os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_CREAT | os.O_WRONLY | os.O_TRUNC):
        os.close(os.open(p, flags))
    say(p, "a note")
    with open(p, "w", encoding="utf-8") as f:
        f.write("renew\n")
    assert show(p)["note"] == "a note"  # O_TRUNC takes nothing away.
    os.unlink(p)


def test_exclusion(m):
    """Many processes, one lock: never two inside."""
    p, counter = m.path("race"), os.path.join(m.base, "counter")
    script = r"""
i=0
while [ $i -lt 15 ]; do
    if ( set -C; : > "$1" ) 2>/dev/null; then
        n=$(cat "$2"); echo $((n + 1)) > "$2"; i=$((i + 1)); rm "$1" || exit 1
    fi
done"""
    with open(counter, "w", encoding="utf-8") as f:
        f.write("0\n")
    workers = [subprocess.Popen(["dash", "-c", script, "x", p, counter]) for _ in range(6)]
    assert [w.wait(60) for w in workers] == [0] * 6
    with open(counter, encoding="utf-8") as f:
        assert int(f.read()) == 90
