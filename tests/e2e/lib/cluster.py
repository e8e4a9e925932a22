"""A cluster of real nodes and mounts on this machine, for the end-to-end tests.

A case is a script with a function main(t) that runs `cluster.run_case(main)`.  `t` (Test) has a
private directory and knows the build; whatever it started is ended when the case is over, and a
daemon that ended by itself, or left a sanitizer's report, makes the case fail.
"""
import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wire  # noqa: E402

PROGRAMS = {
    "holdfastd": ["raftstore/node/holdfastd"],
    "mount.holdfast": ["fs/mount.holdfast"],
    "holdfast": ["tools/holdfast", "tools/cli/holdfast"],
    "holdfast-bench": ["tools/holdfast-bench"],
    "holdfast-gateway": ["gateway/holdfast-gateway"],
    "linear_worker": ["tests/linear/linear_worker"],
    "linear_network": ["tests/linear/linear_network"],
    "clockio.so": ["tests/linear/clockio.so"],
    "failio.so": ["tests/e2e/failio.so"],
    "lockf_locker": ["tests/e2e/lockf_locker"],
}
REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|ThreadSanitizer|Assertion .* failed")


class Skip(Exception):
    pass


class Failed(Exception):
    pass


def boot_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def check(condition, sentence):
    if not condition:
        raise Failed(sentence)


def equal(got, wanted, what):
    if got != wanted:
        raise Failed(f"{what}: {got!r}, not {wanted!r}")


def wait_for(what, seconds, function, pause=0.02):
    """Call function until it returns something true; that is returned."""
    end = time.monotonic() + seconds
    while True:
        value = function()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s in vain for {what}")
        time.sleep(pause)


class Process:
    """A program in its own process group, with its output in a log file."""

    def __init__(self, test, name, argv, env=None, place=None):
        """`place`: where it runs (a network name space: linear/network.py); None: here."""
        argv = place.argv(argv) if place else argv
        self.test = test
        self.name = name
        self.log = os.path.join(test.directory, name + ".log")
        self.expected = False  # Its end is wanted: a test killed or stopped it.
        self.stopped = False  # By stop().
        with open(self.log, "ab") as log:
            log.write(("--- " + " ".join(argv) + "\n").encode())
            log.flush()
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=dict(os.environ, **(env or {})))
        self.pid = self.popen.pid
        self.began = time.monotonic()
        test.processes.append(self)

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.alive():
            os.kill(self.pid, number)

    def kill(self):
        self.expected = True
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.popen.wait(20)

    def stop(self):
        self.stopped = True
        self.signal(signal.SIGSTOP)

    def cont(self):
        """Only what stop() has stopped: a SIGCONT also takes away the SIGSTOP with which
        LeakSanitizer, at a process's end, attaches to it; it would then wait for ever."""
        if self.stopped:
            self.stopped = False
            self.signal(signal.SIGCONT)

    def end(self, seconds=20):
        """SIGTERM; returns the exit code."""
        self.expected = True
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            where = self.where()
            self.kill()
            raise Failed(f"{self.name} did not end within {seconds} s of SIGTERM\n{where}") from None

    def wait(self, seconds):
        """Wait for it to end by itself; returns the exit code."""
        self.expected = True
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            where = self.where()
            raise Failed(f"{self.name} still runs after {seconds} s\n{where}") from None

    def where(self):
        """Where it hangs, for a report; ends it."""
        lines = []
        for name in ("wchan", "stack", "syscall"):
            try:
                with open(f"/proc/{self.pid}/{name}") as f:
                    lines.append(f"{name}: {f.read().strip()}")
            except OSError as e:
                lines.append(f"{name}: {e}")
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/stat") as f:
                lines.append("task: " + f.read()[:40])
        before = len(self.text())
        self.signal(signal.SIGABRT)  # A sanitizer prints the stack (handle_abort=1).
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            lines.append("it does not end by SIGABRT either")
        return "\n".join(lines) + "\n" + self.text()[before:][:4000]

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def last_text(self):
        """What it wrote since it was started last."""
        return self.text().rsplit("\n--- ", 1)[-1]


class Node:
    def __init__(self, cluster, number, host, raft_port, client_port, place=None):
        self.place = place
        self.cluster = cluster
        self.id = number
        self.host = host
        self.raft_port = raft_port
        self.client_port = client_port
        self.raft_address = f"{cluster.bracket(host)}:{raft_port}"
        self.client_address = f"{cluster.bracket(host)}:{client_port}"
        self.data = os.path.join(cluster.test.directory, f"data{number}")
        self.member = f"{number}={self.raft_address},{self.client_address}"
        self.process = None
        self.joining = False

    def start(self, env=None, options=()):
        c = self.cluster
        argv = [c.test.program("holdfastd"), "--id", str(self.id), "--data", self.data]
        for node in c.nodes.values():
            if not node.joining or node is self:
                argv += ["--member", node.member]
        if self.joining:
            argv += ["--join"]
        if c.certificates:
            argv += ["--tls", c.tls(f"node/{self.id}")]
        argv += [*c.options, *options]
        self.process = Process(c.test, f"node{self.id}", argv, env, self.place)
        return self

    def kill(self):
        self.process.kill()

    def alive(self):
        return self.process is not None and self.process.alive()

    def connect(self, timeout=5.0):
        with self.place.inside() if self.place else contextlib.nullcontext():
            return self.connect_here(timeout)

    def connect_here(self, timeout):
        return wire.Client(self.host, self.client_port, timeout, self.cluster.tls("client/test"))

    def status(self, timeout=1.0):
        """Its status, or None when it does not answer."""
        if not self.alive():
            return None
        try:
            with self.connect(timeout) as c:
                return c.status(timeout)
        except (OSError, wire.Failure, IndexError):
            return None

    def wait_ready(self, seconds=15):
        return wait_for(f"node {self.id} to answer", seconds, self.status)


class Mount:
    def __init__(self, cluster, name, nodes, options, place=None, env=None):
        self.cluster = cluster
        self.place = place
        self.env = env
        self.name = name
        self.dir = os.path.join(cluster.test.directory, "mnt-" + name)
        os.makedirs(self.dir, exist_ok=True)
        self.source = ",".join(n.client_address for n in nodes)
        self.options = options
        self.start()

    def spawn(self):
        """Start its daemon; when it is mounted ready() is true."""
        argv = [self.cluster.test.program("mount.holdfast"), self.source, self.dir, "-f"]
        if self.options:
            argv += ["-o", self.options]
        self.process = Process(self.cluster.test, "mount-" + self.name, argv, self.env,
                               self.place)

    def start(self):
        self.spawn()
        wait_for(f"mount {self.name}", 20, self.ready)

    def ready(self):
        if not self.process.alive():
            raise Failed(f"mount {self.name} ended: {self.process.last_text()[-600:]}")
        try:
            os.statvfs(self.dir)  # Asks the daemon; fails on the mount of a dead one.
        except OSError:
            return False
        return is_mounted(self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def acquire(self, name):
        """open(O_EXCL): the descriptor."""
        return os.open(self.path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)

    def try_acquire(self, name):
        try:
            return self.acquire(name)
        except FileExistsError:
            return None

    def read(self, name):
        """The key=value lines of a held lock as a dict; None when it is free."""
        try:
            with open(self.path(name)) as f:
                text = f.read()
        except FileNotFoundError:
            return None
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def token(self, name):
        fields = self.read(name)
        return int(fields["token"]) if fields and "token" in fields else None

    def kill(self):
        """As a crash: the mount point stays until it is unmounted."""
        self.process.kill()

    def unmount(self):
        if is_mounted(self.dir):
            unmount(self.dir)
        if is_mounted(self.dir):
            unmount(self.dir, lazily=True)
        code = self.process.wait(20)
        self.process.expected = True
        return code


def unmount(directory, lazily=False):
    """umount(2).  (umount(8) asks the file system first, which waits when the nodes are stopped.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(directory), 2 if lazily else 0) < 0 and \
            ctypes.get_errno() == errno.EPERM:  # Not root's.
        subprocess.run(["fusermount3", "-u", *(["-z"] if lazily else []), directory], check=False,
                       timeout=20, stderr=subprocess.DEVNULL)


def mounts_below(directory):
    with open("/proc/self/mounts") as f:
        found = [line.split()[1] for line in f]
    return [m for m in found if m == directory or m.startswith(directory + "/")]


def is_mounted(directory):
    return directory in mounts_below(directory)


class Cluster:
    """`tls`: nodes speak TLS, with certificates of an authority of their own."""

    def __init__(self, test, n, host="127.0.0.1", options=(), tls=False):
        self.test = test
        self.certificates = os.path.join(test.directory, "certificates") if tls else None
        self.options = list(options)
        self.nodes = {}
        self.mounts = {}
        self.host = host
        for number in range(1, n + 1):
            self.add_node(number)

    def tls(self, identity):
        """The directory of a certificate ("node/1", "mount/HOST", "client/NAME"); made on demand.
        None: the cluster speaks in the clear."""
        if not self.certificates:
            return None
        directory = os.path.join(self.certificates, identity.replace("/", "-"))
        if not os.path.exists(directory):
            subprocess.run([self.test.program("holdfast"), "cert", self.certificates, identity],
                           check=True, timeout=30, stdout=subprocess.DEVNULL)
        return directory

    @staticmethod
    def bracket(host):
        return f"[{host}]" if ":" in host else host

    def add_node(self, number, host=None, ports=None):
        host = host or self.host
        ports = ports or (self.test.free_port(host), self.test.free_port(host))
        node = Node(self, number, host, *ports)
        self.nodes[number] = node
        return node

    def start(self):
        for node in list(self.nodes.values()):
            node.start()
        self.wait_leader()
        return self

    def addresses(self, *numbers):
        return ",".join(self.nodes[i].client_address for i in (numbers or self.nodes))

    def leader(self):
        """The node that calls itself leader of the highest term; None when there is none."""
        best = None
        for node in list(self.nodes.values()):
            s = node.status()
            if s and s["state"] == "leader" and (best is None or s["term"] > best[0]):
                best = (s["term"], node)
        return best[1] if best else None

    def wait_leader(self, seconds=20):
        return wait_for("a leader", seconds, self.leader)

    def followers(self):
        leader = self.wait_leader()
        return [n for n in list(self.nodes.values()) if n is not leader and n.alive()]

    def mount(self, name, nodes=None, options="ttl=5s,timeout=3s"):
        if self.certificates and "tls=" not in options:
            options += ",tls=" + self.tls("mount/host-" + name)
        chosen = [self.nodes[i] for i in nodes] if nodes else list(self.nodes.values())
        self.mounts[name] = Mount(self, name, chosen, options)
        return self.mounts[name]

    def wait_digests_equal(self, seconds=20, nodes=None):
        """All nodes at one index with one digest.  A difference at the same index fails at once."""
        seen = {}

        def same():
            now = set()
            for node in nodes or self.nodes.values():
                s = node.status()
                if s is None:
                    return None
                pair = (s["digest_hi"], s["digest_lo"])
                index = s["applied_index"]
                known = seen.setdefault(index, pair)
                check(known == pair, f"digests differ at index {index}: {known} and {pair}")
                now.add((index, pair))
            return now if len(now) == 1 else None

        return wait_for("equal digests at one index", seconds, same)

    def cli(self, *arguments, cluster=None, timeout=30, ok=True):
        """Run the CLI; returns the completed process."""
        place = next(iter(self.nodes.values())).place if self.nodes else None
        argv = [self.test.program("holdfast"), *map(str, arguments), "--cluster",
                cluster or self.addresses()]
        if self.certificates:
            argv += ["--tls", self.tls("client/test")]
        done = subprocess.run(place.argv(argv) if place else argv, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False)
        if REPORT.search(done.stderr):
            raise Failed(f"{' '.join(argv)}: {done.stderr[-1500:]}")
        if ok and done.returncode != 0:
            raise Failed(f"{' '.join(argv)}: exit {done.returncode}: "
                         f"{done.stdout[-500:]}{done.stderr[-1000:]}")
        return done

    def cli_json(self, *arguments, **options):
        done = self.cli(*arguments, "--json", **options)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise Failed(f"holdfast {' '.join(map(str, arguments))} --json: "
                         f"not JSON: {done.stdout[:500]}") from None


class Test:
    def __init__(self, build, directory, arguments):
        self.build = os.path.abspath(build)
        self.directory = directory
        self.arguments = arguments
        self.processes = []
        self.ports = set()

    def program(self, name):
        for candidate in PROGRAMS[name]:
            path = os.path.join(self.build, candidate)
            if os.path.exists(path):
                return path
        raise Failed(f"{name} is not in {self.build}: build it first")

    def free_port(self, host):
        """A port that is free now, below the range that the kernel gives to outgoing connections:
        a node that is down must find its port free again."""
        name = "127.0.0.1" if host == "localhost" else host
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        seed = int.from_bytes(os.urandom(2), "little")
        for i in range(20000):
            port = 10000 + (seed + i * 7) % 20000
            with socket.socket(family, socket.SOCK_STREAM) as s:
                try:
                    s.bind((name, port))
                except OSError:
                    continue
            if port not in self.ports:
                self.ports.add(port)
                return port
        raise Failed("no free port")

    def cluster(self, n, **options):
        return Cluster(self, n, **options)

    def need_root(self):
        if os.geteuid() != 0:
            raise Skip("must be root")

    def need_fuse(self):
        if not os.path.exists("/dev/fuse"):
            raise Skip("no /dev/fuse")

    def finish(self):
        """End everything; returns what is wrong with the daemons, as sentences."""
        wrong = []
        for p in self.processes:
            if not p.expected and not p.alive():
                wrong.append(f"{p.name} ended by itself: exit {p.popen.returncode}: "
                             f"{p.text()[-800:]}")
        for mount in mounts_below(self.directory):
            unmount(mount)
        busy = mounts_below(self.directory)  # A failed case may have files open there.
        for mount in reversed(busy):
            unmount(mount, lazily=True)
        for p in reversed(self.processes):
            if p.alive():
                try:
                    p.cont()
                    expected = p.expected
                    # A mount's daemon ends by itself when it was unmounted.
                    code = p.wait(20) if p.name.startswith("mount") and not busy else p.end()
                    # Python's own helpers aside, a daemon ends with 0 when asked to.
                    if code != 0 and not expected and p.name.startswith(("node", "mount", "gateway")):
                        wrong.append(f"{p.name}: exit {code} after SIGTERM or umount: "
                                     f"{p.text()[-800:]}")
                except (Failed, subprocess.TimeoutExpired) as e:  # The others are to be ended all the same.
                    wrong.append(str(e))
        for log in sorted({p.log for p in self.processes}):
            with open(log, errors="replace") as f:
                text = f.read()
            found = REPORT.search(text)
            if found:
                wrong.append(f"{os.path.basename(log)}: {text[found.start():found.start() + 2500]}")
        return wrong


def run_case(main):
    """Run a case: BUILDDIR and the case's own arguments on the command line."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(f"usage: {os.path.basename(sys.argv[0])} BUILDDIR [OPTION...]\n\n"
              f"{sys.modules['__main__'].__doc__ or ''}")
        sys.exit(0 if len(sys.argv) > 1 else 2)
    os.umask(0o022)
    directory = tempfile.mkdtemp(prefix="hf-", dir=os.environ.get("HOLDFAST_TEST_DIR"))
    test = Test(sys.argv[1], directory, sys.argv[2:])
    status = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))
    try:
        main(test)
    except Skip as e:
        print(f"skipped: {e}")
        status = 77
    except (Exception, KeyboardInterrupt) as e:  # pylint: disable=broad-except
        status = 1
        if isinstance(e, Failed):
            where = traceback.extract_tb(e.__traceback__)
            lines = [f.lineno for f in where if f.filename == os.path.abspath(sys.argv[0])]
            print(f"FAILED (line {lines[-1] if lines else '?'}): {e}")
        else:
            traceback.print_exc(file=sys.stdout)
    finally:
        wrong = test.finish()
        for sentence in wrong:
            print(f"FAILED: {sentence}")
        if wrong and status in (0, 77):
            status = 1
        keep = os.environ.get("HOLDFAST_TEST_KEEP")
        if status == 1:
            for log in sorted({p.log for p in test.processes}):
                with open(log, errors="replace") as f:
                    tail = f.read()[-1500:]
                print(f"---- end of {os.path.basename(log)}\n{tail}")
        if keep and status == 1:
            print(f"kept: {directory}")
        elif not mounts_below(directory):
            shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.flush()
    sys.exit(status)


def expect_errno(number, function, what):
    """function() must fail with this errno (a number or a tuple of them)."""
    numbers = number if isinstance(number, tuple) else (number,)
    names = "/".join(errno.errorcode[n] for n in numbers)
    try:
        function()
    except OSError as e:
        if e.errno not in numbers:
            raise Failed(f"{what}: {errno.errorcode.get(e.errno, e.errno)}, not {names}") from None
        return
    raise Failed(f"{what}: succeeded; {names} was expected")
