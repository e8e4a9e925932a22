"""The daemon's life: start, refusals, end, kill -9, restart, ordinary users."""
import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from mountlib import (BUILD, NOBODY, Daemon, Helper, Mount, Node, acquire, fails, free_ports, in_child, is_mounted,
                      mounts, program, say, show, take, wait_until)

OPTIONS = None


def close_dead(fd):
    """Close a descriptor whose mount is gone: it is closed, whatever close(2) says."""
    try:
        os.close(fd)
    except OSError as e:
        assert e.errno in (errno.ENOTCONN, errno.ECONNABORTED)


@contextlib.contextmanager
def fuse_for_all():
    """/dev/fuse as udev has it; bare machines show it to root only."""
    mode = os.stat("/dev/fuse").st_mode & 0o7777
    os.chmod("/dev/fuse", mode | 0o666)
    try:
        yield
    finally:
        os.chmod("/dev/fuse", mode)


def mount_holdfast(*argv, **more):
    return subprocess.run([program("mount.holdfast"), *argv], check=False, capture_output=True, text=True, timeout=60,
                          **more)


def test_usage():
    for argv, word in (((), "SOURCE"), (("local",), "DIR"), (("local", "/x", "-o", "nonsense"), "nonsense"),
                       (("a:1", "/x", "-o", "data=/y"), "data"), (("local", "/x", "-o", "ttl=1ns"), "ttl")):
        r = mount_holdfast(*argv)
        assert r.returncode == 1 and word in r.stderr, r
    assert mount_holdfast("--help").returncode == 0 and "session_ttl" in mount_holdfast("-h").stdout
    assert mount_holdfast("--version").stdout.startswith("mount.holdfast ")


def test_refusals():
    """Exit status 32 and a sentence, from the background too; nothing stays mounted."""
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    try:
        d = base + "/mnt"
        (port,) = free_ports(1)
        for argv, word in (
            (("local", base + "/none/mnt", "-o", "data=" + base + "/data"), "none"),
            (("local", d, "-o", "data=" + base + "/data"), "mnt"),
            (("127.0.0.1:%d" % port, base, "-o", "timeout=300ms,log=" + base + "/log"), "300 ms"),
            (("nonsense", base, "-o", "log=" + base + "/log"), "nonsense"),
            (("local", base, "-o", "data=" + base + "/" + "x" * 120), "too long"),
            (("local", base, "-o", "data=/proc/none/data,log=" + base + "/log"), "data directory /proc/none/data"),
            (("local", base, "-o", "otlp=ftp://127.0.0.1/,data=%s/data,log=%s/log" % (base, base)), "otlp=ftp:"),
            (("local", base, "-o", "log=" + base + "/log,data=" + base + "/a,b"), "unknown option"),
        ):
            for more in ((), ("-f",)):
                r = mount_holdfast(*argv, *more)
                assert r.returncode in (1, 32) and r.returncode == (1 if word == "unknown option" else 32), r
                assert word in r.stderr, r
        assert not [m for m in mounts() if m[0].startswith(base)]
    finally:
        shutil.rmtree(base)


def test_names_of_the_mount_point():
    """As it is given, so it is found: ".", and with slashes at its end."""
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    d = base + "/mnt"
    os.mkdir(d)
    try:
        for name, here in ((".", d), ("mnt//", base)):
            r = mount_holdfast("local", name, "-o", "data=" + base + "/data", cwd=here)
            assert r.returncode == 0, r
            assert is_mounted(d), name
            os.close(acquire(d + "/x"))
            os.unlink(d + "/x")
            subprocess.run(["umount", d], check=True)
    finally:
        subprocess.run(["umount", "-l", d], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(base, ignore_errors=True)


def test_store_fails():
    """A store under the mount that can't write any more ends the daemon with status 4: nothing is answered
    from then on, and what was acknowledged is there when it starts again."""
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    d, data, log, trigger = (base + "/" + x for x in ("mnt", "data", "log", "fail"))
    os.mkdir(d)
    env = dict(os.environ, LD_PRELOAD=program("failio.so"), FAILIO_DIR=data, FAILIO_CALL="sync", FAILIO_AFTER="0",
               FAILIO_FILE=trigger,
               ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0:detect_leaks=0")
    argv = [program("mount.holdfast"), "local", d, "-f", "-o", "ttl=60s,data=" + data]

    def logged():
        with open(log, encoding="utf-8") as f:
            return f.read()

    try:
        daemon = Daemon(argv, log, env)
        wait_until(lambda: logged().count('msg="mounted"') == 1, 30)
        fd = acquire(d + "/kept")
        with open(trigger, "w", encoding="utf-8"):
            pass
        with fails("ENOTCONN", "ECONNABORTED", "EIO"):
            acquire(d + "/never")
        assert daemon.process.wait(30) == 4
        with fails("ENOTCONN"):
            os.listdir(d)
        assert 'msg="the store has failed"' in logged() and data in logged(), logged()[-3000:]
        close_dead(fd)
        os.unlink(trigger)
        daemon = Daemon(argv, log)
        wait_until(lambda: logged().count('msg="mounted"') == 2, 30)
        with fails("EEXIST"):
            acquire(d + "/kept")
        daemon.stop()
    finally:
        subprocess.run(["umount", "-l", d], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(base, ignore_errors=True)


def test_background():
    """The mount is usable when the command returns; umount ends the daemon."""
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    try:
        d = base + "/a dir"
        os.mkdir(d)
        data = base + "/data"
        for _ in range(3):
            r = mount_holdfast("local", os.path.relpath(d, base), "-v", "-n", "-o",
                               "rw,nosuid,nodev,noexec,_netdev,nofail,x-systemd.automount,data=" +
                               os.path.relpath(data, base), cwd=base)
            assert r.returncode == 0 and not r.stderr and not r.stdout, r
            take(d + "/lock")
            os.unlink(d + "/lock")
            again = mount_holdfast("local", d, "-o", "data=" + base + "/data2")
            assert again.returncode == 32 and "already" in again.stderr, again
            with open("/proc/self/mounts", encoding="utf-8") as f:
                line = [x for x in f if x.split()[1] == d.replace(" ", "\\040")]
            assert len(line) == 1 and line[0].startswith("local ") and "noexec" in line[0] and "nosuid" in line[0]
            subprocess.run(["umount", d], check=True)
        with open(data + "/mount.log", encoding="utf-8") as f:
            log = f.read()
        assert log.count('msg="mounted"') == 3 and "Sanitizer" not in log and "runtime error" not in log, log[-3000:]
    finally:
        wait_until(lambda: subprocess.run(["umount", d], check=False, stderr=subprocess.DEVNULL).returncode, 5)
        time.sleep(0.3)
        shutil.rmtree(base, ignore_errors=True)


def test_read_only():
    with Mount("ro") as m:
        with fails("EROFS"):
            acquire(m.path("x"))
        assert os.listdir(m.dir) == []


def test_busy_at_the_end():
    """SIGTERM with open files and a process inside: the daemon ends all the same."""
    with Mount() as m:
        os.mkdir(m.path("d"))
        fd = acquire(m.path("d", "x"))
        holder = subprocess.Popen(["sleep", "30"], cwd=m.path("d"))
        m.daemon.stop()
        assert not is_mounted(m.dir)
        with fails("ENOTCONN", "ECONNABORTED"):
            os.write(fd, b"renew")
        close_dead(fd)
        holder.kill()
        holder.wait()
        m.start()
        os.unlink(m.path("d", "x"))  # A lease outlives the daemon, and authority the restart.


def test_watched_at_the_end():
    """SIGTERM while somebody polls a lease of an hour: it ends at once."""
    with Mount("ttl=1h") as m:
        fd = acquire(m.path("x"))
        poller = select.poll()
        poller.register(fd, select.POLLIN | select.POLLPRI)
        assert poller.poll(10) == []
        m.daemon.stop()
        with open(m.base + "/mount.log", encoding="utf-8") as f:
            assert "handles left" not in f.read()
        close_dead(fd)


def test_kill_and_mount_again():
    with Mount("ttl=2s") as m:
        p, q = m.path("p"), m.path("q")
        began = time.monotonic()
        fd = acquire(p)
        take(q)
        token = show(p)["token"]
        with Helper() as script:
            script.ok("( exec 7>/dev/null; set -C; : > '%s' ); exec 8<'%s'" % (m.path("r"), m.path("r")))
            m.daemon.kill()
            with fails("ENOTCONN", "ECONNABORTED"):
                os.stat(p)
            again = time.monotonic()
            m.start()
            assert is_mounted(m.dir)
            print("mounted again %.0f ms after kill -9" % ((time.monotonic() - again) * 1000))
            assert show(p)["token"] == token  # Not gone before its time.
            with Helper(stranger=True) as stranger:
                stranger.refused("rm -f '%s'" % p, "not permitted")
            with fails("EEXIST"):
                acquire(p)
            say(p, "renew")  # Host, boot, process are told by the owner text.
            os.unlink(q)
            script.refused("rm -f '%s'" % m.path("r"), "not permitted")  # Its subshell is gone, with the memory.
        with fails("ENOTCONN", "ECONNABORTED"):  # The old mount's descriptor.
            os.read(fd, 1)
        close_dead(fd)
        wait_until(lambda: not os.path.exists(m.path("r")), 5)
        assert time.monotonic() - began >= 2.0
        say(p, "release")


def test_kill_keeps_time():
    """Leases of a killed daemon end after their ttl, and not before."""
    with Mount("ttl=1500ms") as m:
        before = time.monotonic()
        take(m.path("p"))
        m.daemon.kill()
        m.start()
        wait_until(lambda: not os.path.exists(m.path("p")), 10)
        gone = time.monotonic() - before
        assert 1.5 <= gone < 2.5, gone
        take(m.path("p"))


def test_keep_ends_with_the_daemon():
    with Mount("ttl=500ms") as m:
        take(m.path("p"))
        say(m.path("p"), "keep")
        time.sleep(0.8)
        assert show(m.path("p"))
        m.daemon.kill()
        m.start()
        wait_until(lambda: not os.path.exists(m.path("p")), 5)


def test_two_mounts_of_a_node():
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    os.chmod(base, 0o755)
    node = Node(base)
    try:
        os.mkdir(base + "/1")
        os.mkdir(base + "/2")
        with Mount("host=one,ttl=20s", node.address, base + "/1") as a, Mount("host=two", node.address,
                                                                           base + "/2") as b:
            assert os.getxattr(a.dir, "user.holdfast.cluster").decode() == node.address
            fd = acquire(a.path("x"))
            with fails("EEXIST"):
                acquire(b.path("x"))
            assert show(b.path("x"))["host"] == "one"
            assert os.stat(a.path("x")).st_ino == os.stat(b.path("x")).st_ino
            with fails("EPERM"):  # Another host's lock: never.
                os.unlink(b.path("x"))
            with fails("EPERM"):
                say(b.path("x"), "renew")
            say(b.path("x"), "renew 50s " + show(b.path("x"))["token"])
            assert show(a.path("x"))["ttl_ms"] == "50000"
            say(b.path("x"), "release " + show(b.path("x"))["token"])
            take(b.path("x"))
            wait_until(lambda: stale(fd), 2)
            with fails("EPERM"):
                os.unlink(a.path("x"))
            os.close(fd)
            os.unlink(b.path("x"))
            os.mkdir(a.path("d"), 0o700)
            assert os.stat(b.path("d")).st_mode == 0o40700
            for i in range(200):  # What one has been answered, the other sees.
                take(a.path("d", "y"))
                assert os.path.exists(b.path("d", "y"))
                os.unlink(a.path("d", "y"))
                assert not os.path.exists(b.path("d", "y")), i
    finally:
        node.close()
        shutil.rmtree(base)


def stale(fd):
    try:
        os.pread(fd, 1, 0)
    except OSError as e:
        return e.errno == 116
    return False


def test_release_async():
    with Mount("release=async") as m:
        p = m.path("x")
        for _ in range(300):  # In order: the next acquire never meets the old hold.
            os.close(acquire(p))
            os.unlink(p)
            with fails("ENOENT"):
                os.stat(p)
        with fails("ENOENT"):
            os.unlink(p)


def test_ordinary_user():
    """Through fusermount3, with the store in the user's state directory."""
    if shutil.which("fusermount3") is None:
        raise unittest.SkipTest("no fusermount3 here")
    with fuse_for_all():
        ordinary_user()


def ordinary_user():
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    copy = base + "/mount.holdfast"  # The build may be where the user can't look.
    shutil.copy(program("mount.holdfast"), copy)
    d = base + "/mnt"
    os.mkdir(d)
    for name in (base, d):
        os.chown(name, NOBODY, NOBODY)
    env = {"PATH": os.environ["PATH"], "HOME": base, "XDG_STATE_HOME": base + "/state"}
    as_user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    try:
        r = subprocess.run(as_user + [copy, "local", d], env=env, check=False, capture_output=True, text=True,
                           timeout=60)
        assert r.returncode == 0, r
        assert is_mounted(d)
        script = ("( set -C; echo $$ > '%s/x' ) && cat '%s/x' && echo renew > '%s/x' && ls -l '%s' && rm '%s/x' && "
                  "! ls '%s/x' 2>/dev/null" % ((d,) * 6))
        r = subprocess.run(as_user + ["bash", "-c", script], env=env, check=False, capture_output=True, text=True)
        assert r.returncode == 0 and "token=" in r.stdout, r
        assert os.path.isdir(base + "/state/holdfast")
        r = subprocess.run(as_user + [copy, "local", d], env={"PATH": env["PATH"]}, check=False, capture_output=True,
                           text=True, timeout=60)
        assert r.returncode == 1 and "no home directory" in r.stderr, r
        with fails("EACCES"):  # Without allow_other not even root.
            os.listdir(d)
        # A daemon of the user's that died leaves nothing in the way.
        pids = subprocess.run(["pgrep", "-f", copy], check=True, capture_output=True, text=True).stdout.split()
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: not subprocess.run(["pgrep", "-f", copy], check=False, capture_output=True).stdout, 5)
        r = subprocess.run(as_user + [copy, "local", d], env=env, check=False, capture_output=True, text=True,
                           timeout=60)
        assert r.returncode == 0, r
        r = subprocess.run(as_user + ["fusermount3", "-u", d], env=env, check=False, capture_output=True, text=True)
        assert r.returncode == 0, r
        wait_until(lambda: not subprocess.run(["pgrep", "-f", copy], check=False, capture_output=True).stdout, 10)
        with open(base + "/state/holdfast/mount.log", encoding="utf-8") as f:
            log = f.read()
        assert "Sanitizer" not in log and "runtime error" not in log, log[-3000:]
    finally:
        subprocess.run(["umount", "-l", d], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(base, ignore_errors=True)


def test_cluster_list_as_a_user():
    """A SOURCE with commas survives fusermount3."""
    if shutil.which("fusermount3") is None:
        raise unittest.SkipTest("no fusermount3 here")
    with fuse_for_all():
        cluster_list()


def cluster_list():
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    os.chmod(base, 0o755)
    node = Node(base)
    copy, d = base + "/mount.holdfast", base + "/mnt"
    shutil.copy(program("mount.holdfast"), copy)
    os.mkdir(d)
    os.chown(d, NOBODY, NOBODY)
    (port,) = free_ports(1)
    source = "%s,127.0.0.1:%d" % (node.address, port)
    as_user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    try:
        r = subprocess.run(as_user + [copy, source, d, "-o", "log=" + d + "/../mnt.log"], check=False,
                           capture_output=True, text=True, timeout=60)
        assert r.returncode == 32 and "log" in r.stderr, r  # It may not write there.
        r = subprocess.run(as_user + [copy, source, d, "-o", "log=/dev/null"], check=False, capture_output=True,
                           text=True, timeout=60)
        assert r.returncode == 0, r
        with open("/proc/self/mounts", encoding="utf-8") as f:
            assert [x.split()[0] for x in f if x.split()[1] == d] == [source]
        in_child(lambda: (take(d + "/x"), os.unlink(d + "/x")), NOBODY)
        subprocess.run(as_user + ["fusermount3", "-u", d], check=True)
    finally:
        subprocess.run(["umount", "-l", d], check=False, stderr=subprocess.DEVNULL)
        wait_until(lambda: not subprocess.run(["pgrep", "-f", copy], check=False, capture_output=True).stdout, 10)
        node.close()
        shutil.rmtree(base, ignore_errors=True)


def test_store_in_use():
    """A second daemon on the same data is refused."""
    with Mount() as m:
        d = m.base + "/second"
        os.mkdir(d)
        r = mount_holdfast("local", d, "-f", "-o", "data=" + m.data)
        assert r.returncode == 32 and r.stderr, r
        assert not is_mounted(d) and os.path.exists(BUILD)
        take(m.path("x"))
