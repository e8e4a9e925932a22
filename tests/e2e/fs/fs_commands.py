"""Reading, renewing, keeping, releasing, notes, attributes."""
import mmap
import os
import re
import subprocess
import time

from mountlib import acquire, fails, in_child, say, show, take, wait_until

OPTIONS = "ttl=20s"


def remaining(p):
    return int(show(p)["remaining_ms"])


def test_read(m):
    p = m.path("read")
    fd = acquire(p)
    os.write(fd, b"two\nlines \\ \n")
    text = show(p)
    assert list(text) == ["owner", "pid", "host", "mode", "token", "since", "expires", "remaining_ms", "ttl_ms",
                          "waiters", "note"], list(text)
    assert text["pid"] == str(os.getpid()) and text["host"] == os.uname().nodename
    assert text["mode"] == "exclusive" and text["waiters"] == "0" and text["ttl_ms"] == "20000"
    assert text["note"] == r"two\x0alines \x5c "
    for key in ("since", "expires"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text[key]), text[key]
    assert 15000 < int(text["remaining_ms"]) <= 20000
    # One moment, however small the reader's buffer; afresh from offset 0.
    whole = b""
    while chunk := os.pread(fd, 7, len(whole)):
        whole += chunk
    assert whole.startswith(b"owner=") and whole.endswith(b"\\x5c \n")
    os.write(fd, b"other")
    assert os.pread(fd, 4096, 0).endswith(b"note=other\n")
    assert os.pread(fd, 10, 100000) == b""
    os.close(fd)
    os.unlink(p)


def test_renew(m):
    p = m.path("renew")
    fd = acquire(p)
    os.write(fd, b"renew 2s\n")
    assert remaining(p) <= 2000 and show(p)["ttl_ms"] == "2000"
    say(p, "renew 90s")
    assert 80000 < remaining(p) <= 90000
    before = show(p)["expires"]
    time.sleep(0.05)
    say(p, "renew")
    assert show(p)["expires"] > before and show(p)["ttl_ms"] == "90000"
    for wrong in ("renew 90x", "renew 0s", "keep 5s", "release now"):
        with fails("EINVAL"):
            say(p, wrong)
    assert show(p)["note"] == ""
    os.close(fd)
    os.unlink(p)


def test_across_pages(m):
    """One write is one command, wherever the program's buffer lies."""
    p = m.path("pages")
    fd = acquire(p)
    with mmap.mmap(-1, 4 * mmap.PAGESIZE) as area:
        view = memoryview(area)
        for before in (1, 3, 100):
            at = mmap.PAGESIZE - before
            view[at:at + 200] = b"n" * 200
            assert os.write(fd, view[at:at + 200]) == 200
            assert show(p)["note"] == "n" * 200
            with fails("EFBIG"):
                os.write(fd, view[at:at + 2 * mmap.PAGESIZE])
            assert show(p)["note"] == "n" * 200
            view[at:at + 9] = b"renew 7s\n"
            os.write(fd, view[at:at + 9])
            assert show(p)["ttl_ms"] == "7000"
            os.write(fd, b"renew 9s")
        view.release()
    os.close(fd)
    os.unlink(p)


def test_touch(m):
    p = m.path("touch")
    take(p)
    say(p, "renew 3s")
    before, number = os.stat(p).st_mtime_ns, os.stat(p).st_ino
    time.sleep(0.1)
    subprocess.run(["touch", p], check=True)
    assert remaining(p) > 2000
    assert os.stat(p).st_mtime_ns > before and os.stat(p).st_ino == number
    os.utime(p, ns=(1, 1700000000123456789))  # Any time: it is a renewal.
    assert os.stat(p).st_mtime_ns == 1700000000123456789 and os.stat(p).st_ctime > before / 1e9
    say(p, "renew 3s")
    assert os.stat(p).st_mtime_ns > before  # By a renewal that names none it is that one's.
    os.unlink(p)
    with fails("ENOENT"):
        os.utime(p)
    gone = subprocess.run(["touch", p], check=False, capture_output=True, text=True)
    assert gone.returncode != 0 and "No such file" in gone.stderr, gone
    with fails("ENOENT"):
        os.stat(p)


def test_token(m):
    p = m.path("token")
    old = os.umask(0)
    os.close(acquire(p, 0o666))
    os.umask(old)
    token = show(p)["token"]

    def stranger():  # Another uid: neither process nor descriptor of the owner.
        fd = os.open(p, os.O_WRONLY)
        with fails("EPERM"):
            os.write(fd, b"renew")
        with fails("EPERM"):
            os.write(fd, b"a note")
        with fails("EPERM"):
            os.write(fd, b"release")
        with fails("EPERM"):
            os.write(fd, b"renew %d" % (int(token) + 1000))
        with fails("EPERM"):
            os.write(fd, b"release %d" % (int(token) + 1000))
        os.write(fd, b"renew %s 50s" % token.encode())
        os.close(fd)

    in_child(stranger, 65534)
    assert show(p)["ttl_ms"] == "50000"

    def release():
        fd = os.open(p, os.O_WRONLY)
        os.write(fd, b"release %s\n" % token.encode())
        with fails("ENOENT"):
            os.write(fd, b"release %s\n" % token.encode())
        os.close(fd)

    in_child(release, 65534)
    with fails("ENOENT"):
        os.stat(p)


def test_token_of_another_path(m):
    a, b = m.path("token-a"), m.path("token-b")
    fd = acquire(a)
    take(b)
    token = show(a)["token"]
    with fails("EPERM"):
        say(b, "release " + token)
    assert show(a)["token"] == token and show(b)
    os.write(fd, b"renew")  # And the daemon does not think that it is gone.
    os.close(fd)
    os.unlink(a)
    os.unlink(b)


def test_release(m):
    p = m.path("release")
    fd = acquire(p)
    os.write(fd, b"release\n")
    with fails("ENOENT"):
        os.stat(p)
    for text in (b"renew", b"release", b"note"):
        with fails("ESTALE"):
            os.write(fd, text)
    with fails("ESTALE"):
        os.pread(fd, 10, 0)
    with fails("ESTALE"):
        os.fsync(fd)
    take(p)
    with fails("ESTALE"):  # For ever, whoever holds it now.
        os.write(fd, b"release")
    assert show(p)
    say(p, "release")
    os.close(fd)
    with fails("ENOENT"):
        os.unlink(p)


def test_note(m):
    p = m.path("note")
    fd = acquire(p)
    os.write(fd, b"x" * 256 + b"\n")
    assert show(p)["note"] == "x" * 256
    for n in (257, 5000, 100000):
        with fails("EFBIG"):
            os.write(fd, b"y" * n)
    assert show(p)["note"] == "x" * 256
    os.write(fd, b"\n")
    assert show(p)["note"] == ""
    os.fsync(fd)
    os.close(fd)
    with open(p, "a", encoding="utf-8") as f:
        f.write("appended\n")
    assert show(p)["note"] == "appended"
    os.unlink(p)


def test_keep(m):
    """Renewed while the process lives, released when it dies."""
    p = m.path("keep")
    holder = subprocess.Popen(["bash", "-c", '( set -C; : > "$0" ) && echo "renew 600ms" > "$0" && '
                               '/bin/echo keep > "$0" && echo up && read x', p], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"up\n"
    token = show(p)["token"]
    for _ in range(12):
        time.sleep(0.2)
        assert show(p)["token"] == token
    holder.kill()
    wait_until(lambda: not os.path.exists(p), 10)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()


def test_keep_then_release(m):
    p = m.path("keep-release")
    fd = acquire(p)
    os.write(fd, b"renew 500ms")
    os.write(fd, b"keep")
    time.sleep(1)
    assert show(p)
    os.unlink(p)
    time.sleep(0.3)
    with fails("ENOENT"):
        os.stat(p)
    os.close(fd)


def test_xattrs(m):
    p = m.path("xattr")
    take(p)
    text = show(p)
    assert set(os.listxattr(p)) == {"user.holdfast." + n for n in ("token", "owner", "ttl_ms", "remaining_ms", "mode")}
    assert os.getxattr(p, "user.holdfast.token").decode() == text["token"]
    assert os.getxattr(p, "user.holdfast.owner").decode() == text["owner"]
    assert os.getxattr(p, "user.holdfast.mode") == b"exclusive"
    assert os.getxattr(p, "user.holdfast.ttl_ms") == b"20000"
    assert 15000 < int(os.getxattr(p, "user.holdfast.remaining_ms")) <= 20000
    os.setxattr(p, "user.holdfast.ttl_ms", b"70000")
    assert show(p)["ttl_ms"] == "70000" and remaining(p) > 60000
    for value in (b"", b"x", b"70s", b"0", b"99999999999"):
        with fails("EINVAL"):
            os.setxattr(p, "user.holdfast.ttl_ms", value)
    with fails("EEXIST"):
        os.setxattr(p, "user.holdfast.ttl_ms", b"80000", os.XATTR_CREATE)
    with fails("EPERM"):
        os.setxattr(p, "user.holdfast.token", b"1")
    with fails("ENOTSUP"):
        os.setxattr(p, "user.other", b"1")
    with fails("EPERM"):
        os.removexattr(p, "user.holdfast.token")
    with fails("ENODATA"):
        os.getxattr(p, "user.other")
    with fails("ENODATA", "ENOTSUP"):
        os.getxattr(p, "security.selinux")
    with fails("ENODATA"):
        os.getxattr(m.dir, "user.holdfast.token")
    os.unlink(p)


def test_root_xattrs(m):
    assert os.getxattr(m.dir, "user.holdfast.cluster").decode() == "unix:" + m.data + "/client.sock"
    assert os.getxattr(m.dir, "user.holdfast.mount")
    assert set(os.listxattr(m.dir)) == {"user.holdfast.cluster", "user.holdfast.mount"}


def test_attributes_refused(m):
    p = m.path("attributes")
    fd = acquire(p)
    with fails("EPERM"):
        os.chmod(p, 0o600)
    with fails("EPERM"):
        os.chown(p, 1, 1)
    os.truncate(p, 0)
    os.ftruncate(fd, 10)
    os.close(fd)
    os.unlink(p)


def test_statfs(m):
    before = os.statvfs(m.dir)
    p = m.path("df")
    take(p)
    after = os.statvfs(m.dir)
    assert after.f_files == before.f_files > 1000000
    assert after.f_ffree == before.f_ffree - 1
    os.unlink(p)
    assert subprocess.run(["df", "-i", m.dir], check=False, stdout=subprocess.DEVNULL).returncode == 0
