"""What the tests of the mount share: a mount of its own, processes to act in, errno checks."""
import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

BUILD = os.environ.get("HOLDFAST_BUILD", "")
SLOW = bool(os.environ.get("HOLDFAST_TEST_SLOW"))
NOBODY = 65534
SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:")


def program(name):
    where = {"mount.holdfast": "fs", "holdfastd": "raftstore/node", "failio.so": "tests/e2e"}[name]
    return os.path.join(BUILD, where, name)


def mounts():
    """Mount points and their types, as the kernel has them."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        return [(line.split()[1], line.split()[2]) for line in f]


def is_mounted(directory):
    return (directory, "fuse.holdfast") in mounts()


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_until(what, seconds=10.0):
    """Wait for an event that has no descriptor to wait on."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError("did not happen in %.1f s" % seconds)
        time.sleep(0.005)


class Daemon:
    """A program in the foreground, with its standard error in a file."""

    def __init__(self, argv, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def stop(self):
        """End it cleanly; its exit status must be 0 (a sanitizer's finding makes it another)."""
        self.process.terminate()
        status = self.process.wait(60 if SLOW else 20)
        self.check(status)

    def check(self, status):
        with open(self.log, errors="replace", encoding="utf-8") as f:
            text = f.read()
        if status != 0 or SANITIZER.search(text):
            raise AssertionError("exit status %d; its log ends:\n%s" % (status, text[-6000:]))


class Mount:
    """A mount in a directory of its own.  `source`: None = local."""

    def __init__(self, options="", source=None, base=None, wait=True):
        self.base = base or tempfile.mkdtemp(prefix="holdfast-fs-")
        self.own_base = base is None
        os.chmod(self.base, 0o755)
        self.dir = os.path.join(self.base, "mnt")
        self.data = os.path.join(self.base, "data")
        self.options = options
        self.source = source
        self.daemon = None
        os.makedirs(self.dir, exist_ok=True)
        self.start(wait)

    def argv(self):
        options = self.options
        if self.source is None:
            options += ("," if options else "") + "data=" + self.data
        argv = [program("mount.holdfast"), self.source or "local", self.dir, "-f"]
        return argv + (["-o", options] if options else [])

    def start(self, wait=True):
        log = os.path.join(self.base, "mount.log")
        before = os.path.getsize(log) if os.path.exists(log) else 0
        self.daemon = Daemon(self.argv(), log)
        if not wait:
            return

        def usable():
            with open(log, "rb") as f:
                f.seek(before)
                text = f.read()
            if self.daemon.process.poll() is not None:
                raise AssertionError("the daemon ended: " + text.decode(errors="replace"))
            return b'msg="mounted"' in text

        wait_until(usable, 60 if SLOW else 15)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def close(self):
        try:
            if self.daemon.process.poll() is None:
                self.daemon.stop()
        finally:
            if self.daemon.process.poll() is None:
                self.daemon.kill()
            while is_mounted(self.dir):
                if subprocess.run(["umount", "-l", self.dir], check=False).returncode:
                    break
            if self.own_base:
                shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Node:
    """A holdfastd of one member."""

    def __init__(self, base):
        self.base = base
        self.raft, self.client = free_ports(2)
        self.address = "127.0.0.1:%d" % self.client
        self.daemon = Daemon(
            [program("holdfastd"), "--id", "1", "--data", os.path.join(base, "node"), "--member",
             "1=127.0.0.1:%d,%s" % (self.raft, self.address)], os.path.join(base, "node.log"))

    def leads(self):
        with open(self.daemon.log, encoding="utf-8", errors="replace") as f:
            return "role=leader" in f.read()

    def close(self):
        if self.daemon.process.poll() is None:
            self.daemon.signal(signal.SIGCONT)
            self.daemon.stop()


@contextlib.contextmanager
def fails(*names):
    """The block raises OSError with one of these errnos."""
    try:
        yield
    except OSError as e:
        got = errno.errorcode.get(e.errno, e.errno)
        assert got in names, "errno %s instead of %s" % (got, "/".join(names))
    else:
        raise AssertionError("succeeded instead of " + "/".join(names))


def acquire(path, mode=0o644):
    """O_EXCL; the descriptor."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)


def take(path):
    os.close(acquire(path))


def say(path, text):
    """What `echo TEXT > path` does to a lock that is held."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(fd, text.encode() + b"\n")
    finally:
        os.close(fd)


def show(path):
    """The report as a dictionary ({}: free)."""
    with open(path, encoding="utf-8") as f:
        return dict(line.rstrip("\n").split("=", 1) for line in f)


def in_child(function, uid=None):
    """Run in a forked process; pass its exception on."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            function()
        except BaseException as e:  # pylint: disable=broad-except
            os.write(write, ("%s: %s" % (type(e).__name__, e)).encode()[:4000])
            status = 1
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        text = f.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if status:
        raise AssertionError("in the child: " + (text or "status %d" % status))


class Helper:
    """A process that runs shell commands when told to, and stays alive in between.

    `stranger`: not a descendant of this process, as far as the kernel can tell."""

    def __init__(self, stranger=False, shell="bash"):
        argv = [shell, "-c", 'while IFS= read -r line; do eval "$line"; echo "status=$?"; done']
        if stranger:
            # The middle process ends, and init (or the nearest reaper) adopts the shell.
            argv = ["setsid", "-f"] + argv
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, bufsize=1)
        if stranger:
            self.run("true")

    def run(self, command):
        """Return: (status, output)."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        output = ""
        for line in self.process.stdout:
            if line.startswith("status="):
                return int(line[7:]), output
            output += line
        raise AssertionError("the helper ended: " + output)

    def ok(self, command):
        status, output = self.run(command)
        assert status == 0, "%s: status %d: %s" % (command, status, output)
        return output

    def refused(self, command, text):
        status, output = self.run(command)
        assert status != 0, "%s: succeeded" % command
        assert text in output, "%s: said %r, not %r" % (command, output, text)

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
