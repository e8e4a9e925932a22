"""The cluster under test: nodes, mounts and gateways on hosts of their own, and the clients that use
them, kept running whatever is done to them."""
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time

import cluster as lib
from cluster import Failed, Process, check, wait_for
from gateway import Gateway
from history import Writer
from network import Network

STYLES = ("oexcl", "flock", "fcntl", "mkdir", "link", "rename")
N_LOCKS = {"oexcl": 6, "flock": 4, "fcntl": 3, "mkdir": 3, "link": 3, "rename": 2, "http": 4,
           "native": 3, "keeper": 4}
MOUNTS = ("a", "b", "c")
FIRST_UID = 30000
CLIENT_PORT, RAFT_PORT = 7100, 7000
DISK_MIB = 96


def lock_name(style, i):
    return f"{style}{i}/key" + (".lock" if style == "mkdir" else "")


class Clock:
    """The clock of one program, that clockio.so makes wrong."""

    def __init__(self, test, name):
        self.path = os.path.join(test.directory, f"clock-{name}")
        self.set(0, 0)
        self.env = {"LD_PRELOAD": test.program("clockio.so"), "CLOCKIO_FILE": self.path}

    def set(self, wall_ns, rate_ppm):
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as f:
            f.write(struct.pack("<qq", wall_ns, rate_ppm))
        self.wall_ns, self.rate_ppm = wall_ns, rate_ppm


def join_env(*parts):
    """Environments together; LD_PRELOADs one behind the other."""
    out = {}
    for part in parts:
        for name, value in part.items():
            out[name] = f"{out[name]}:{value}" if name == "LD_PRELOAD" and name in out else value
    if "LD_PRELOAD" in out:
        out["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    return out


class Rig:
    def __init__(self, test, options):
        self.t = test
        self.options = options
        self.rng = random.Random(options.seed)
        self.ttl_ms = options.ttl
        names = [f"node{i + 1}" for i in range(options.nodes)] + \
                [f"mount-{m}" for m in MOUNTS] + ["web", "native"]
        self.network = Network(test, names, options.seed)
        self.host = self.network.hosts
        self.n_histories = 0
        self.open_history()
        tls = getattr(options, "tls", False)
        self.c = test.cluster(0, tls=tls, options=[
            *([] if tls else ["--insecure"]), "--snapshot-log-entries",
            str(options.snapshot_entries)])
        self.clocks = {}
        self.uid = FIRST_UID
        self.workers = []   # [Process, mount name, style]
        self.helpers = []   # HTTP and native clients.
        self.gateways = []
        self.mount_state = {}
        self.restarts = 0
        self.demoted = set()  # Nodes that shall get their vote back.
        self.quiet = False  # The faults are over: nothing may end by itself any more.

    # ---- begin ----

    def open_history(self):
        """A new directory for what the clients write from now on."""
        self.n_histories += 1
        self.directory = os.path.join(self.t.directory, f"history{self.n_histories}")
        os.mkdir(self.directory)
        path = self.directory  # Workers run as users that have nothing else here.
        while path.startswith(tempfile.gettempdir() + "/"):
            os.chmod(path, os.stat(path).st_mode | 0o111)
            path = os.path.dirname(path)
        self.events = Writer(os.path.join(self.directory, "events.hist"), time.monotonic_ns)

    def start(self):
        """Nodes, mounts, gateways and clients."""
        self.start_daemons()
        self.start_clients()

    def start_daemons(self):
        o = self.options
        for i in range(o.nodes):
            self.make_node(i + 1, self.host[f"node{i + 1}"])
        for node in self.c.nodes.values():
            self.start_node(node)
        self.c.wait_leader(30)
        for m in MOUNTS:
            self.clocks["mount-" + m] = Clock(self.t, "mount-" + m)
            tls = self.c.tls(f"mount/host-{m}")
            self.c.mounts[m] = lib.Mount(
                self.c, m, list(self.c.nodes.values()),
                f"ttl={self.ttl_ms}ms,timeout=3s,session_ttl={o.session_ttl}ms," +
                (f"tls={tls}" if tls else f"host=host-{m}"),
                self.host["mount-" + m], join_env(self.clocks["mount-" + m].env))
            self.mount_state[m] = "up"
        self.make_directories()
        nodes = self.c.addresses()
        for i in (1, 2):
            self.clocks[f"gateway{i}"] = Clock(self.t, f"gateway{i}")
            tls = self.c.tls(f"gateway/g{i}")
            g = Gateway(self.c, str(i), ("--no-auth", "--timeout", "3s",
                                         *(("--tls", tls) if tls else ())), nodes,
                        join_env(self.clocks[f"gateway{i}"].env), place=self.host["web"], port=8080 + i)
            self.gateways.append(g)
        for g in self.gateways:
            g.wait_ready(30)

    def start_clients(self):
        self.start_helpers(self.c.addresses())
        for i in range(self.options.workers):
            self.start_worker(MOUNTS[i % len(MOUNTS)], STYLES[(i // len(MOUNTS)) % len(STYLES)])

    def make_node(self, number, place):
        node = lib.Node(self.c, number, place.address, RAFT_PORT, CLIENT_PORT, place)
        # The last host has a small disk of its own, which can be filled.
        node.disk = None
        if place is self.host[f"node{self.options.nodes}"]:
            node.disk = os.path.join(self.t.directory, "disk")
            node.data = os.path.join(node.disk, f"data{number}")
            if not os.path.exists(node.disk):
                os.mkdir(node.disk)
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "tmpfs",
                                node.disk], check=True, timeout=20)
        self.c.nodes[number] = node
        self.clocks[f"node{number}"] = Clock(self.t, f"node{number}")
        return node

    def start_node(self, node):
        trigger = os.path.join(self.t.directory, f"fail-{node.id}")
        if os.path.exists(trigger):
            os.unlink(trigger)
        node.trigger = trigger
        failing = {"LD_PRELOAD": self.t.program("failio.so"), "FAILIO_DIR": node.data,
                   "FAILIO_CALL": self.rng.choice(("write", "sync")), "FAILIO_AFTER": "0",
                   "FAILIO_FILE": trigger}
        node.start(join_env(self.clocks[f"node{node.id}"].env, failing))

    def make_directories(self):
        mount = self.c.mounts["a"]
        for style, n in N_LOCKS.items():
            for i in range(n):
                path = mount.path(f"{style}{i}")
                os.makedirs(path, exist_ok=True)
                os.chmod(path, 0o777)

    def start_worker(self, mount, style):
        self.uid += 1
        p = Process(self.t, f"worker{self.uid}", [
            self.t.program("linear_worker"), self.c.mounts[mount].dir, style, str(N_LOCKS[style]),
            str(self.ttl_ms), str(self.options.seed * 100000 + self.uid), str(self.uid),
            os.path.join(self.directory, f"worker{self.uid}.hist"),
            f"{getattr(self.options, 'rate', 0):g}"])
        self.workers.append([p, mount, style])

    def start_helpers(self, nodes):
        here = os.path.dirname(os.path.abspath(__file__))
        web = [lock_name(s, i) for s in ("http", "oexcl", "flock") for i in range(N_LOCKS[s])]
        own = [lock_name(s, i) for s in ("native", "http", "oexcl") for i in range(N_LOCKS[s])]
        self.helpers.append(Process(self.t, "http-clients", [
            os.path.join(here, "http_client.py"), "--gateways",
            ",".join(f"127.0.0.1:{g.port}" for g in self.gateways), "--name", "h", "--clients",
            str(self.options.http), "--locks", ",".join(web), "--ttl", str(self.ttl_ms), "--seed",
            str(self.options.seed), "--log", os.path.join(self.directory, "http.hist")],
            place=self.host["web"]))
        tls = self.c.tls("client/native")
        self.helpers.append(Process(self.t, "native-clients", [
            os.path.join(here, "native_client.py"), *(["--tls", tls] if tls else []), "--nodes", nodes, "--name", "n", "--clients",
            str(self.options.native), "--locks", ",".join(own), "--ttl", str(self.ttl_ms), "--seed",
            str(self.options.seed), "--log", os.path.join(self.directory, "native.hist")],
            place=self.host["native"]))

    # ---- keeping it running ----

    def tend(self):
        """Start again what has ended by what was done to it."""
        for entry in list(self.workers):
            p, mount, style = entry
            if p.alive():
                continue
            code = p.popen.returncode
            check(code in (0, 3, -9) or not self.quiet and code < 0,
                  f"{p.name} ended with {code}: {p.text()[-500:]}")
            p.expected = True
            if self.mount_state[mount] == "up":
                self.workers.remove(entry)
                self.start_worker(mount, style)
        for name in MOUNTS:
            if self.mount_state[name] == "coming":
                self.mount_coming(self.c.mounts[name])

    def mount_coming(self, mount):
        if not mount.process.alive():
            # Without a majority it gives up in time, and says so.
            check(mount.process.popen.returncode in (1, 32),
                  f"mount {mount.name} ended with {mount.process.popen.returncode}: "
                  f"{mount.process.last_text()[-500:]}")
            mount.process.expected = True
            self.spawn_mount(mount)
        elif lib.is_mounted(mount.dir):
            self.mount_state[mount.name] = "up"

    def spawn_mount(self, mount):
        for _ in range(3):
            if lib.is_mounted(mount.dir):
                lib.unmount(mount.dir, lazily=True)
        mount.spawn()
        self.mount_state[mount.name] = "coming"

    def kill_mount(self, mount):
        self.mount_state[mount.name] = "down"
        mount.kill()

    def kill_worker(self, entry):
        """As kill -9 does: of its last operation nobody knows."""
        self.events.ended(f"p{entry[0].pid}")
        entry[0].kill()

    def node_alive(self):
        return [n for n in self.c.nodes.values() if n.alive()]

    def replace(self, node):
        """As an operator does with a node whose disk is lost: a new one, with an id that was never
        used, takes its place (README, Reseed a node)."""
        self.c.nodes.pop(node.id)
        shutil.rmtree(node.data, ignore_errors=True)
        number = max([*self.c.nodes, node.id, self.options.nodes + self.restarts]) + 1
        self.restarts += 1
        new = self.make_node(number, node.place)
        new.joining = True
        self.start_node(new)
        new.joining = False

        def replaced():
            done = self.c.cli("member", "replace", node.id, new.member, "--timeout", "20s",
                              timeout=80, ok=False)
            said.append(done.stderr.strip())
            members = self.members()
            return done.returncode == 0 or number in members and node.id not in members
        said = []
        try:
            wait_for(f"node {number} to take the place of node {node.id}", 90, replaced, 0.5)
        except Failed as e:
            raise Failed(f"{e}: {said[0]}; {said[-1]}; members: {self.members()}") from None

    def promote(self):
        """Give those their vote back that lost it, where that is possible now."""
        for number in sorted(self.demoted):
            if number not in self.c.nodes or self.c.leader() and self.c.cli(
                    "member", "promote", number, "--timeout", "3s", timeout=20,
                    ok=False).returncode == 0:
                self.demoted.discard(number)

    def can_spare(self, node):
        """Would the others be a majority without it?"""
        roles = self.members()
        voters = [n for n, role in roles.items() if role == "voter"]
        alive = [n.id for n in self.node_alive() if n is not node]
        return len(set(voters) & set(alive)) > len(voters) // 2 and len(voters) == len(self.c.nodes)

    def members(self):
        try:
            with self.c.wait_leader(3).connect() as w:
                return w.members()
        except (OSError, lib.wire.Failure, Failed):
            return {}

    # ---- the end ----

    def settle(self):
        """Everything runs again: what can make progress does."""
        self.network.link(None, None)
        for host in self.host.values():
            self.network.mtu(host, 1500)
        for p in self.t.processes:
            p.cont()
        for node in self.c.nodes.values():
            if not node.alive():
                check(node.process.expected, f"node {node.id} ended by itself: "
                                             f"{node.process.last_text()[-800:]}")
                self.start_node(node)
        self.c.wait_leader(40)
        wait_for("every node to have its vote", 60, lambda: (self.promote(), not self.demoted)[1], 0.5)
        for m in MOUNTS:
            if self.mount_state[m] == "down":
                self.spawn_mount(self.c.mounts[m])
        end = time.monotonic() + 40
        while any(s != "up" for s in self.mount_state.values()):
            self.tend()
            if time.monotonic() > end:
                raise Failed(f"mounts do not come back: {self.mount_state}")
            time.sleep(0.1)
        for g in self.gateways:
            if not g.process.alive():
                g.start()
            g.wait_ready(30)
        self.tend()

    def stop_clients(self):
        for p, _, _ in self.workers:
            p.signal(15)
        for p in self.helpers:
            p.signal(15)
        for p in [w[0] for w in self.workers] + self.helpers:
            code = p.wait(40)
            check(code in (0, 3), f"{p.name} ended with {code}: {p.text()[-500:]}")
        self.workers, self.helpers = [], []

    def kill_clients(self):
        """So that nothing is written any more; what was under way is indeterminate."""
        all_of_them = [w[0] for w in self.workers] + self.helpers
        for p in all_of_them:  # At once: one that waits for another's request can't be killed.
            p.expected = True
            p.signal(signal.SIGCONT)
            p.signal(signal.SIGKILL)
        for p in all_of_them:
            p.kill()

    def acquire_all(self):
        """At the end every lock can be had, within the longest lease: nothing was left behind."""
        longest = max(self.ttl_ms, self.options.session_ttl) / 1000
        name = "final"
        g = self.gateways[0]
        for style, n in N_LOCKS.items():
            if style == "keeper":
                continue
            for i in range(n):
                lock = lock_name(style, i)
                m = self.events.invoke(name, "acquire", lock, by="http", ttl_ms=60000, wait=1)
                a = g.acquire(lock, name, ttl=60, wait=int(longest * 2) + 20, timeout=90)
                if a.status != 200:
                    self.events.answer(name, m, "unknown")
                    raise Failed(f"{lock} can't be had at the end: {a}; it is held by "
                                 f"{g.get('/locks/' + lock)}")
                self.events.answer(name, m, "ok", token=a.json["token"])
                m = self.events.invoke(name, "release", lock, by="http", token=a.json["token"])
                check(g.release(lock, name, token=a.json["token"]).status == 200, "release at the end")
                self.events.answer(name, m, "ok")

    # ---- long leases: nothing acknowledged is lost ----

    def keep(self):
        self.kept = {}
        for i in range(N_LOCKS["keeper"]):
            lock = lock_name("keeper", i)
            m = self.events.invoke("keeper", "acquire", lock, by="http", ttl_ms=86400000)
            a = self.gateways[i % 2].acquire(lock, "keeper", ttl=86400, note=f"note {i}")
            check(a.status == 200, f"keeper: {a}")
            self.events.answer("keeper", m, "ok", token=a.json["token"])
            self.kept[lock] = (a.json["token"], f"note {i}")

    def verify_kept(self):
        """By every mount and gateway."""
        for lock, (token, note) in self.kept.items():
            seen = [self.c.mounts[m].read(lock) for m in MOUNTS]
            for fields in seen:
                check(fields is not None and int(fields["token"]) == token,
                      f"{lock}: a lease of a day with token {token} is now {fields}")
                check(fields.get("note") == note, f"{lock}: note {fields.get('note')!r}, not {note!r}")
            for g in self.gateways:
                a = g.get("/locks/" + lock)
                check(a.status == 200 and a.json["version"] == token, f"{lock}: {a}, not {token}")
