"""No answer from the cluster: time-outs and signals.  The node is stopped with SIGSTOP."""
import errno
import fcntl
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from mountlib import Mount, Node, acquire, fails, show, take, wait_until

OPTIONS = None


class Stopped:
    """A mount of a node that can be stopped."""

    def __init__(self, options):
        self.base = tempfile.mkdtemp(prefix="holdfast-fs-")
        os.chmod(self.base, 0o755)
        self.node = Node(self.base)
        os.mkdir(self.base + "/m")
        try:
            wait_until(self.node.leads, 20)  # The mount's own time-out may be shorter than that.
            self.mount = Mount(options, self.node.address, self.base + "/m")
        except BaseException:
            self.node.daemon.kill()
            raise

    def __enter__(self):
        return self

    def stop(self):
        self.node.daemon.signal(signal.SIGSTOP)

    def go_on(self):
        self.node.daemon.signal(signal.SIGCONT)

    def __exit__(self, *_):
        self.go_on()
        try:
            self.mount.close()
            self.node.close()
        finally:
            if self.node.daemon.process.poll() is None:
                self.node.daemon.kill()
            shutil.rmtree(self.base, ignore_errors=True)


def timed(function, *names):
    began = time.monotonic()
    with fails(*names):
        function()
    return time.monotonic() - began


def test_time_out():
    """Every operation ends with ETIMEDOUT, timeout= after it began; nothing hangs."""
    with Stopped("timeout=700ms,ttl=30s,session_ttl=20s,dircache=0") as s:
        p = s.mount.path("held")
        fd = acquire(p)
        directory = os.open(s.mount.dir, os.O_DIRECTORY)
        s.stop()
        operations = {
            "acquire": lambda: acquire(s.mount.path("new")),
            "read": lambda: os.pread(fd, 10, 0),
            "renew": lambda: os.write(fd, b"renew"),
            "note": lambda: os.write(fd, b"a note"),
            "utime": lambda: os.utime(fd),
            "stat": lambda: os.stat(p),
            "list": lambda: os.listdir(directory),
            "statvfs": lambda: os.statvfs(s.mount.dir),
            "getxattr": lambda: os.getxattr(fd, "user.holdfast.token"),
            "mkdir": lambda: os.mkdir(s.mount.path("d")),
        }
        for name, function in operations.items():
            took = timed(function, "ETIMEDOUT")
            assert 0.6 <= took < 20, "%s: %.2f s" % (name, took)
        assert subprocess.run(["df", s.mount.dir], check=False, capture_output=True, timeout=20).returncode in (0, 1)
        os.fsync(fd)  # By our own clock it is held.
        s.go_on()
        wait_until(lambda: works(s.mount.dir), 10)
        os.write(fd, b"renew")
        os.close(fd)
        os.unlink(p)
        # What timed out has left nothing behind.
        wait_until(lambda: "new" not in os.listdir(s.mount.dir), 10)


def works(directory):
    try:
        os.stat(directory + "/nothing")
    except OSError as e:
        return e.errno == errno.ENOENT
    return False


def test_lost_without_being_told():
    """The daemon judges by its own deadline."""
    with Stopped("timeout=5s,ttl=1s") as s:
        fd = acquire(s.mount.path("x"))
        began = time.monotonic()
        s.stop()
        held = began
        while True:
            asked = time.monotonic()
            try:
                os.fsync(fd)
            except OSError as e:
                assert e.errno == errno.ESTALE
                break
            held = asked
            assert held - began < 30
            time.sleep(0.002)
        assert held - began <= 1.0  # A call that was asked later must not have believed any more.
        with fails("ESTALE"):
            os.pread(fd, 1, 0)
        with fails("ESTALE"):
            os.write(fd, b"renew")
        s.go_on()
        with fails("ESTALE"):
            os.write(fd, b"renew")
        os.close(fd)


def test_release_without_an_answer():
    """Whether it was released is not known, so nobody relies on it; and the release goes on."""
    with Stopped("timeout=500ms,ttl=60s,session_ttl=30s") as s:
        p = s.mount.path("x")
        fd = acquire(p)
        s.stop()
        with fails("ETIMEDOUT"):
            os.write(fd, b"release")
        with fails("ESTALE"):
            os.fsync(fd)
        s.go_on()
        wait_until(lambda: works(s.mount.dir), 10)
        wait_until(lambda: not os.path.exists(p), 10)
        os.close(fd)


def test_shorter_renewal_without_an_answer():
    """It may have been done: then the lease ends as early as that."""
    with Stopped("timeout=500ms,ttl=60s,session_ttl=30s") as s:
        fd = acquire(s.mount.path("x"))
        s.stop()
        began = time.monotonic()
        with fails("ETIMEDOUT"):
            os.write(fd, b"renew 1s")
        os.fsync(fd)
        time.sleep(max(0.0, began + 1.01 - time.monotonic()))
        with fails("ESTALE"):
            os.fsync(fd)
        s.go_on()
        os.close(fd)


class SlowWay:
    """Forwards one connection after the other to an address; answers take `delay` seconds."""

    def __init__(self, address, delay):
        host, port = address.split(":")
        self.target = (host, int(port))
        self.delay = delay
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target)
            except OSError:  # Not up yet: the client tries again.
                near.close()
                continue
            for pair in ((near, far, 0.0), (far, near, self.delay)):
                threading.Thread(target=self.forward, args=pair, daemon=True).start()

    @staticmethod
    def forward(source, target, delay):
        later = queue.Queue()

        def send():
            while (item := later.get())[1]:
                time.sleep(max(0.0, item[0] - time.monotonic()))
                try:
                    target.sendall(item[1])
                except OSError:
                    return

        threading.Thread(target=send, daemon=True).start()
        data = b"-"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            later.put((time.monotonic() + delay, data))

    def close(self):
        self.listener.close()


def test_end_with_an_acquire_on_its_way():
    """The daemon ends cleanly, though the acquire is granted while it closes."""
    base = tempfile.mkdtemp(prefix="holdfast-fs-")
    node = Node(base)
    way = SlowWay(node.address, 0.3)
    try:
        os.mkdir(base + "/m")
        for i, delay in enumerate((0.45, 0.75, 1.05)):  # After GETATTR and LOOKUP comes the CREATE.
            mount = Mount("timeout=5s,ttl=2s,session_ttl=30s", way.address, base + "/m")
            process = subprocess.Popen(["python3", "-c", "import os, sys; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL)",
                                        mount.path(str(i))], stderr=subprocess.DEVNULL)
            time.sleep(delay)
            mount.daemon.signal(signal.SIGTERM)
            mount.daemon.check(mount.daemon.process.wait(60))
            process.wait(10)
            mount.close()
    finally:
        way.close()
        node.close()
        shutil.rmtree(base, ignore_errors=True)


INTERRUPTED = r"""
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.siginterrupt(signal.SIGUSR1, True)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print("ready", flush=True)
fd = libc.open(sys.argv[1].encode(), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
print(fd, ctypes.get_errno(), flush=True)
sys.stdin.read()
"""


def test_interrupt():
    """A signal ends the wait; nothing is left of the request."""
    with Stopped("timeout=20s,session_ttl=30s,ttl=60s") as s:
        for i in range(3):
            p = s.mount.path("x%d" % i)
            process = subprocess.Popen(["python3", "-c", INTERRUPTED, p], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
            process.stdout.readline()
            # First the LOOKUP waits; the second time it is the CREATE that we meet, mostly.
            s.stop()
            time.sleep(0.3)
            sent = time.monotonic()
            process.send_signal(signal.SIGUSR1)
            fd, error = map(int, process.stdout.readline().split())
            took = time.monotonic() - sent
            if fd < 0:
                assert error == errno.EINTR and took < 10, (fd, error, took)
            s.go_on()
            process.stdin.close()
            process.stdout.close()
            process.wait(10)
            if fd < 0:
                wait_until(lambda p=p: not os.path.exists(p), 10)


def test_kill_a_waiting_process():
    """SIGKILL reaps at once, whatever the process waits for."""
    with Stopped("timeout=20s,session_ttl=30s") as s:
        take(s.mount.path("held"))
        s.stop()
        for command in ("cat '%s'" % s.mount.path("held"), ": > '%s'" % s.mount.path("new"), "ls -l '%s'" % s.mount.dir,
                        "rm '%s'" % s.mount.path("held"), "mkdir '%s'" % s.mount.path("d")):
            process = subprocess.Popen(["bash", "-c", "set -C; exec 2>/dev/null; " + command], stdout=subprocess.DEVNULL)
            time.sleep(0.15)
            assert process.poll() is None, command
            process.kill()
            sent = time.monotonic()
            process.wait(10)
            assert time.monotonic() - sent < 10, command
        s.go_on()
        wait_until(lambda: works(s.mount.dir), 10)
        wait_until(lambda: os.listdir(s.mount.dir) in (["held"], []), 10)


def test_handled_signals_do_not_disturb():
    """A signal that a program handles (a shell's SIGCHLD) does not make open() fail while the
    cluster answers as usual."""
    with Mount() as m:
        p = m.path("x")
        count = [0]

        def on_timer(*_):
            count[0] += 1

        signal.signal(signal.SIGUSR1, on_timer)
        pid, poker = os.getpid(), None
        try:
            poker = subprocess.Popen(["python3", "-c", "import os, time\nwhile os.getppid() == %d:\n    os.kill(%d, 10)\n"
                                      "    time.sleep(0.001)" % (pid, pid)])
            end = time.monotonic() + 10
            import ctypes  # pylint: disable=import-outside-toplevel
            libc = ctypes.CDLL(None, use_errno=True)
            n = 0  # Undisturbed cycles: a stall of the machine may cost some of them.
            while (n < 50 or count[0] <= 20) and time.monotonic() < end:
                fd = libc.open(p.encode(), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
                if fd >= 0:
                    libc.close(fd)
                    if libc.unlink(p.encode()) == 0:
                        n += 1
                        continue
                assert ctypes.get_errno() == errno.EINTR, errno.errorcode[ctypes.get_errno()]
                wait_until(lambda: not os.path.exists(p), 5)  # What it did is undone.
            assert n >= 50 and count[0] > 20, (n, count[0])
        finally:
            if poker is not None:
                poker.kill()
                poker.wait()
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_read_while_lost():
    with Stopped("timeout=2s,ttl=400ms") as s:
        fd = acquire(s.mount.path("x"))
        assert show(s.mount.path("x"))
        s.stop()
        time.sleep(0.1)
        with fails("ESTALE", "ETIMEDOUT"):
            os.pread(fd, 10, 0)
        s.go_on()
        os.close(fd)


WAITER = r"""
import fcntl, os, signal, sys, time
def stop(*_): raise InterruptedError()
signal.signal(signal.SIGINT, stop)
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
try:
    fcntl.flock(fd, fcntl.LOCK_EX)
except InterruptedError:
    time.sleep(0.5)
"""


def test_end_with_a_wait_in_its_place():
    """The mount ends, the cluster grants in that moment, and the waiter was interrupted just before:
    it stands in its place for 40 ms still, longer than the client lives."""
    for delay in (0.022, 0.03, 0.04):
        with Stopped("timeout=5s,session_ttl=20s") as s:
            p = s.mount.path("x")
            fd = os.open(p, os.O_CREAT | os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX)
            waiter = subprocess.Popen(["python3", "-c", WAITER, p])
            wait_until(lambda p=p: show(p)["waiters"] == "1", 10)
            s.stop()
            unlocker = subprocess.Popen(["python3", "-c", "import fcntl; fcntl.flock(%d, 8)" % fd], pass_fds=[fd],
                                        stderr=subprocess.DEVNULL)
            time.sleep(0.3)  # Until it waits for the answer.
            waiter.send_signal(signal.SIGINT)
            time.sleep(delay)
            s.mount.daemon.signal(signal.SIGTERM)
            time.sleep(0.005)
            s.go_on()
            waiter.wait(20)
            unlocker.wait(20)
            with fails("ENOTCONN"):
                os.close(fd)
            s.mount.daemon.check(s.mount.daemon.process.wait(60))
