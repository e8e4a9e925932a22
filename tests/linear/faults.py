"""The faults that a run can do, and the schedule that chooses among them by its seed.

A fault begins, lasts for a while, and ends; `once` ones are over as soon as they were done.  Every
begin and end stands in the history.
"""
import os
import random
import signal
import time

from cluster import check
from rig import MOUNTS

RATE_PPM = 3000  # Two clocks that differ by twice that stay within the allowance of a lease, ttl/128.
DAY_NS = 86400 * 10**9


class Fault:
    """begin() returns what it did to whom (for the history), or None: not now."""

    name = ""
    seconds = (0.3, 2.0)  # How long it lasts.

    def __init__(self, rig, rng):
        self.rig = rig
        self.rng = rng

    def begin(self):
        raise NotImplementedError

    def end(self):
        pass

    # ---- whom ----

    def leader(self):
        return self.rig.c.leader()

    def node(self):
        """Any that runs, the leader as likely as all the others together."""
        alive = [n for n in self.rig.node_alive() if not n.process.stopped]
        if not alive:
            return None
        leader = self.leader() if self.rng.random() < 0.5 else None
        return leader or self.rng.choice(alive)

    def node_hosts(self):
        return [n.place for n in self.rig.c.nodes.values()]

    def client_hosts(self):
        return [h for name, h in self.rig.host.items() if not name.startswith("node")]


class KillNode(Fault):
    name = "kill-node"

    def begin(self):
        self.victim = self.node()
        if self.victim is None:
            return None
        self.victim.kill()
        return str(self.victim.id)

    def end(self):
        if self.victim.id in self.rig.c.nodes and not self.victim.alive():
            self.rig.start_node(self.victim)


class KillAll(Fault):
    name = "kill-all"

    def begin(self):
        self.victims = self.rig.node_alive()
        for n in self.victims:
            n.process.expected = True
            n.process.signal(signal.SIGKILL)
        for n in self.victims:
            n.kill()
        return "every node"

    def end(self):
        for n in self.victims:
            if n.id in self.rig.c.nodes and not n.alive():
                self.rig.start_node(n)


class StopNode(Fault):
    name = "stop-node"
    seconds = (0.2, 6.0)

    def begin(self):
        self.victim = self.node()
        if self.victim is None:
            return None
        self.victim.process.stop()
        return str(self.victim.id)

    def end(self):
        self.victim.process.cont()


class KillMount(Fault):
    name = "kill-mount"

    def begin(self):
        up = [m for m in MOUNTS if self.rig.mount_state[m] == "up"]
        if len(up) < 2:
            return None
        self.victim = self.rig.c.mounts[self.rng.choice(up)]
        self.rig.kill_mount(self.victim)
        return self.victim.name

    def end(self):
        self.rig.spawn_mount(self.victim)


class StopMount(Fault):
    """Often for longer than its leases and its session last."""

    name = "stop-mount"

    def begin(self):
        up = [m for m in MOUNTS if self.rig.mount_state[m] == "up" and
              not self.rig.c.mounts[m].process.stopped]
        if not up:
            return None
        self.process = self.rig.c.mounts[self.rng.choice(up)].process
        ttl_s = self.rig.ttl_ms / 1000
        self.seconds = self.rng.choice(((0.2, 1.0), (ttl_s * 0.9, ttl_s * 1.3)))
        self.process.stop()
        return self.process.name

    def end(self):
        self.process.cont()


class KillGateway(Fault):
    name = "kill-gateway"

    def begin(self):
        self.victim = self.rng.choice(self.rig.gateways)
        if not self.victim.process.alive():
            return None
        self.victim.process.kill()
        return self.victim.name

    def end(self):
        if not self.victim.process.alive():
            self.victim.start()


class StopGateway(Fault):
    name = "stop-gateway"
    seconds = (0.2, 5.0)

    def begin(self):
        self.process = self.rng.choice(self.rig.gateways).process
        if not self.process.alive() or self.process.stopped:
            return None
        self.process.stop()
        return self.process.name

    def end(self):
        self.process.cont()


class KillClient(Fault):
    name = "kill-client"
    seconds = None

    def begin(self):
        alive = [w for w in self.rig.workers if w[0].alive()]
        chosen = self.rng.sample(alive, min(len(alive), self.rng.randrange(1, 4)))
        for w in chosen:
            self.rig.kill_worker(w)
        return " ".join(f"p{w[0].pid}" for w in chosen) or None


class StopClient(Fault):
    """A client that stands still past the end of what it holds."""

    name = "stop-client"
    seconds = (0.5, 6.0)

    def begin(self):
        alive = [w[0] for w in self.rig.workers if w[0].alive() and not w[0].stopped]
        self.chosen = self.rng.sample(alive, min(len(alive), self.rng.randrange(1, 4)))
        for p in self.chosen:
            p.stop()
        return " ".join(f"p{p.pid}" for p in self.chosen) or None

    def end(self):
        for p in self.chosen:
            p.cont()


class Cut(Fault):
    """Paths that drop every packet."""

    seconds = (0.5, 6.0)

    def paths(self):
        raise NotImplementedError

    def begin(self):
        found = self.paths()
        if not found:
            return None
        text, self.cut = found
        for a, b in self.cut:
            self.rig.network.link(a, b, drop=1)
        return text

    def end(self):
        for a, b in self.cut:
            self.rig.network.link(a, b)

    @staticmethod
    def both(a, b):
        return [(a, b), (b, a)]


class CutNode(Cut):
    """A node from all others: its clients remain, or do not."""

    name = "cut-node"

    def paths(self):
        node = self.node()
        if node is None:
            return None
        others = [h for h in self.node_hosts() if h is not node.place]
        text = f"node {node.id} from the other nodes"
        if self.rng.random() < 0.5:
            others += self.client_hosts()
            text += " and its clients"
        return text, [p for h in others for p in self.both(node.place, h)]


class CutOneWay(Cut):
    """What a node says is not heard, or it hears nothing."""

    name = "cut-oneway"

    def paths(self):
        node = self.node()
        if node is None:
            return None
        others = [h for h in self.node_hosts() if h is not node.place]
        if self.rng.random() < 0.5:
            return f"from node {node.id} to the others", [(node.place, h) for h in others]
        return f"to node {node.id} from the others", [(h, node.place) for h in others]


class CutBridge(Cut):
    """Two parts of the nodes that share one: nobody is alone, not everybody sees everybody."""

    name = "cut-bridge"

    def paths(self):
        hosts = self.node_hosts()
        if len(hosts) < 3:
            return None
        self.rng.shuffle(hosts)
        half = (len(hosts) - 1) // 2
        left, right = hosts[1:1 + half], hosts[1 + half:]
        return (f"{'+'.join(h.name for h in left)} from {'+'.join(h.name for h in right)}",
                [p for a in left for b in right for p in self.both(a, b)])


class CutHalves(Cut):
    """A majority from a minority, clients with either."""

    name = "cut-halves"

    def paths(self):
        hosts = self.node_hosts() + self.client_hosts()
        left = [h for h in hosts if self.rng.random() < 0.5]
        right = [h for h in hosts if h not in left]
        return (f"{'+'.join(h.name for h in left)} from the rest",
                [p for a in left for b in right for p in self.both(a, b)])


class CutClient(Cut):
    """A mount's or the gateways' host from all nodes or one, both ways or one."""

    name = "cut-client"

    def paths(self):
        host = self.rng.choice(self.client_hosts())
        nodes = self.node_hosts()
        text = f"{host.name} from the nodes"
        if self.rng.random() < 0.4:
            leader = self.leader()
            nodes = [leader.place if leader else self.rng.choice(nodes)]
            text = f"{host.name} from {nodes[0].name}"
        pairs = [p for n in nodes for p in self.both(host, n)]
        way = self.rng.randrange(3)
        if way == 2:
            return text, pairs
        return text + (", only there" if way == 0 else ", only back"), pairs[way::2]


class BadLink(Cut):
    """Packets that come late, twice, in another order, or not at all."""

    name = "bad-network"
    seconds = (1.0, 6.0)

    def begin(self):
        kind = self.rng.choice(("slow", "lossy", "mixed"))
        what = {}
        if kind in ("slow", "mixed"):
            what = {"delay_us": self.rng.choice((500, 3000, 20000)),
                    "jitter_us": self.rng.choice((200, 5000, 30000))}
        if kind in ("lossy", "mixed"):
            what.update(loss=self.rng.choice((5000, 30000, 100000)),
                        double=self.rng.choice((0, 20000)), reorder=self.rng.choice((0, 20000)))
        hosts = self.node_hosts() + self.client_hosts()
        host = self.rng.choice(hosts + [None])
        self.cut = [(host, None), (None, host)] if host else [(None, None)]
        for a, b in self.cut:
            self.rig.network.link(a, b, **what)
        return (host.name if host else "everywhere") + " " + \
            " ".join(f"{k}={v}" for k, v in what.items() if v)


class Split(Fault):
    """Small packets: every message is split, wherever it may be."""

    name = "split"
    seconds = (1.0, 5.0)

    def begin(self):
        self.hosts = [h for h in self.rig.host.values() if self.rng.random() < 0.5]
        size = self.rng.choice((90, 128, 256))
        for h in self.hosts:
            self.rig.network.mtu(h, size)
        return f"{size} bytes: " + "+".join(h.name for h in self.hosts)

    def end(self):
        for h in self.hosts:
            self.rig.network.mtu(h, 1500)


class WallClock(Fault):
    name = "wall-clock"
    seconds = (0.5, 5.0)

    def begin(self):
        name = self.rng.choice(sorted(self.rig.clocks))
        self.clock = self.rig.clocks[name]
        by = self.rng.choice((-DAY_NS, -3600 * 10**9, -5 * 10**9, 5 * 10**9, 3600 * 10**9,
                              400 * DAY_NS))
        self.clock.set(by, self.clock.rate_ppm)
        return f"{name} {by / 1e9:+g} s"

    def end(self):
        if self.rng.random() < 0.5:
            self.clock.set(0, self.clock.rate_ppm)


class ClockRate(Fault):
    """Steady clocks that run too fast or too slow, within the allowance of a lease."""

    name = "clock-rate"
    seconds = (2.0, 15.0)

    def begin(self):
        self.chosen = [c for _, c in sorted(self.rig.clocks.items()) if self.rng.random() < 0.5]
        for c in self.chosen:
            c.set(c.wall_ns, self.rng.choice((-RATE_PPM, RATE_PPM)))
        return " ".join(f"{os.path.basename(c.path)[6:]}{c.rate_ppm:+d}" for c in self.chosen) or None

    def end(self):
        for c in self.chosen:
            c.set(c.wall_ns, 0)


class DiskError(Fault):
    """A write or a sync fails: the node stops by itself.  It comes back on a good disk, or another
    node takes its place."""

    name = "disk-error"
    seconds = (1.0, 3.0)

    def begin(self):
        if len(self.rig.node_alive()) < len(self.rig.c.nodes):
            return None  # One at a time, so that a replacement finds a majority.
        self.victim = self.choose()
        if self.victim is None:
            return None
        self.victim.process.expected = True
        self.fail()
        return f"node {self.victim.id}"

    def choose(self):
        return self.node()

    def fail(self):
        with open(self.victim.trigger, "w"):
            pass

    def mend(self):
        os.unlink(self.victim.trigger)

    def end(self):
        node = self.victim
        node.process.cont()
        # Without a leader nobody writes: then it is ended as by a power cut.
        end = time.monotonic() + 5
        while node.alive() and time.monotonic() < end:
            time.sleep(0.05)
        if node.alive():
            node.kill()
        check(node.process.popen.returncode in (1, 4, -9),  # 1: just as it was starting.
              f"node {node.id} with a failing disk ended with {node.process.popen.returncode}: "
              f"{node.process.last_text()[-600:]}")
        self.mend()
        if self.rng.random() < 0.5 and "member" in self.rig.options.faults and \
                self.rig.can_spare(node):
            # An operator would wait for a network, and for nodes that answer.
            self.rig.network.link(None, None)
            for n in self.rig.c.nodes.values():
                n.process.cont()
            self.rig.replace(node)
        else:
            self.rig.start_node(node)


class DiskFull(DiskError):
    """Not a byte more fits, on the one node that has a small disk."""

    name = "disk-full"

    def choose(self):
        found = [n for n in self.rig.node_alive() if n.disk and not n.process.stopped]
        return found[0] if found else None

    def fail(self):
        with open(os.path.join(self.victim.disk, "filler"), "ab", buffering=0) as f:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        f.write(b"x" * size)
                except OSError:
                    pass

    def mend(self):
        os.unlink(os.path.join(self.victim.disk, "filler"))


class Transfer(Fault):
    name = "transfer"
    seconds = None

    def begin(self):
        to = self.node()
        if to is None:
            return None
        self.rig.c.cli("leader", "transfer", to.id, "--timeout", "3s", timeout=20, ok=False)
        return f"to node {to.id}"


class Member(Fault):
    """A follower loses its vote, and gets it back."""

    name = "member"
    seconds = (1.0, 4.0)

    def begin(self):
        self.victim = self.node()
        if self.victim is None or len(self.rig.c.nodes) < 3:
            return None
        self.rig.c.cli("member", "demote", self.victim.id, "--timeout", "3s", timeout=20, ok=False)
        return f"demote {self.victim.id}"

    def end(self):
        self.rig.demoted.add(self.victim.id)
        self.rig.promote()


class Hup(Fault):
    name = "hup"
    seconds = None

    def begin(self):
        # One that is just starting has no handler yet, and would be killed.
        for p in [n.process for n in self.rig.c.nodes.values()] + \
                 [g.process for g in self.rig.gateways]:
            if time.monotonic() - p.began > 2:
                p.signal(signal.SIGHUP)
        return "nodes and gateways"


class Snapshot(Fault):
    name = "snapshot"
    seconds = None

    def begin(self):
        path = os.path.join(self.rig.t.directory, "saved.db")
        self.rig.c.cli("snapshot", "save", path, "--timeout", "3s", timeout=20, ok=False)
        return "saved"


KINDS = {c.name: c for c in (
    KillNode, KillAll, StopNode, KillMount, StopMount, KillGateway, StopGateway, KillClient,
    StopClient, CutNode, CutOneWay, CutBridge, CutHalves, CutClient, BadLink, Split, WallClock,
    ClockRate, DiskError, DiskFull, Transfer, Member, Hup, Snapshot)}
WEIGHTS = {"kill-node": 4, "stop-node": 2, "cut-node": 3, "kill-all": 1, "disk-full": 1,
           "disk-error": 1}


class Schedule:
    """Chooses faults by the seed, up to `most` at a time."""

    def __init__(self, rig, names, seed, say, most=2, pause=(0.2, 2.0)):
        self.rig = rig
        self.rng = random.Random(seed)
        self.names = names
        self.say = say
        self.most = most
        self.pause = pause
        self.active = []  # (until, fault, text)
        self.next = time.monotonic() + 1.0
        self.bag = []
        self.promote_at = 0

    def choose(self):
        """Every kind once before one comes again (by its weight)."""
        if not self.bag:
            self.bag = [n for n in self.names for _ in range(WEIGHTS.get(n, 1))]
            self.rng.shuffle(self.bag)
        return self.bag.pop()

    def tick(self):
        now = time.monotonic()
        for entry in list(self.active):
            if entry[0] <= now:
                self.finish(entry)
        if self.rig.demoted and now >= self.promote_at:
            self.promote_at = now + 2
            self.rig.promote()
        if now >= self.next and len(self.active) < self.most:
            self.next = now + self.rng.uniform(*self.pause)
            name = self.choose()
            # Two cuts at a time would heal each other's paths.
            network = (Cut, Split)
            if issubclass(KINDS[name], network) and any(isinstance(f, network)
                                                        for _, f, _ in self.active):
                return
            self.start(KINDS[name](self.rig, self.rng))

    def start(self, fault):
        text = fault.begin()
        if text is None:
            return
        if fault.seconds is None:
            self.rig.events.fault("once", fault.name, text)
            self.say(f"{fault.name} {text}")
            return
        seconds = self.rng.uniform(*fault.seconds)
        self.rig.events.fault("begin", fault.name, text)
        self.say(f"{fault.name} {text} for {seconds:.1f} s")
        self.active.append((time.monotonic() + seconds, fault, text))

    def finish(self, entry):
        self.active.remove(entry)
        entry[1].end()
        self.rig.events.fault("end", entry[1].name, entry[2])
        self.say(f"end of {entry[1].name} {entry[2]}")

    def end(self):
        for entry in list(self.active):
            self.finish(entry)
