#!/usr/bin/python3
"""A cluster in trouble: nodes that are silent are left alone and found again, one kind of load does
not starve another, repetitions are bounded, and what is too much is refused while the rest goes on."""
# seconds: 40
# sanitized: no
import concurrent.futures
import fcntl
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import prometheus  # noqa: E402
import telemetry  # noqa: E402
from cluster import check, equal, run_case, wait_for  # noqa: E402
from gateway import Gateway, problem  # noqa: E402
from proxy import Relay  # noqa: E402


class Watched:
    """Three nodes, each with a relay before it that can cut the gateway off from it alone."""

    def __init__(self, t):
        self.cluster = t.cluster(3)
        self.relays, self.ports = {}, {}
        for node in self.cluster.nodes.values():
            behind, self.ports[node.id] = t.free_port("127.0.0.1"), t.free_port("127.0.0.1")
            self.relays[node.id] = Relay(["holdfast-gateway"])
            self.relays[node.id].listen(node.client_port, behind)
            node.start(options=("--listen", f"{node.raft_address},127.0.0.1:{behind}",
                                "--http", f"127.0.0.1:{self.ports[node.id]}"))
        self.cluster.wait_leader()
        self.gateway = Gateway(self.cluster, options=("--no-auth", "--timeout", "4s")).wait_ready()

    def cut(self, node):
        self.relays[node.id].cut("holdfast-gateway")

    def heal(self, node):
        self.relays[node.id].heal("holdfast-gateway")

    def client(self):
        return prometheus.parse(self.gateway.get("/metrics").body.decode())

    def breaker(self, node):
        f = self.client()["holdfast_client_breaker_state"]
        states = [s for s in ("closed", "open", "half-open")
                  if f.value(node=node.client_address, state=s) == 1]
        equal(len(states), 1, "a breaker is in one state")
        return states[0]

    def opened(self, node):
        return self.client()["holdfast_client_breaker_opened_total"].value(node=node.client_address)

    def reads(self, n=100):
        """So many reads, a few at a time: (status, seconds) of each."""
        def one(i):
            began = time.monotonic()
            return self.gateway.get(f"/locks/some/{i}").status, time.monotonic() - began
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, range(n)))

    def asked(self):
        """Linearizable reads that the nodes were asked for by clients."""
        total = 0
        for node in self.cluster.nodes.values():
            got = telemetry.try_get(self.ports[node.id], "/metrics")
            if got is not None:
                total += prometheus.parse(got[1])["holdfast_node_reads_total"].value()
        return total


def cut_off_leader(w):
    """The gateway can't reach the leader; the cluster has no trouble."""
    g, leader = w.gateway, w.cluster.wait_leader()
    equal(w.breaker(leader), "closed", "before")
    w.cut(leader)
    equal({s for s, _ in w.reads(8)}, {404}, "reads while it is found out")
    check(w.breaker(leader) != "closed", "the breaker of the node that is cut off")
    took = w.reads()
    equal({s for s, _ in took}, {404}, "reads of the others")
    check(sum(s for _, s in took) < 100 * 0.3,
          f"each read pays for the silent node: {sorted(s for _, s in took)[-10:]}")
    problem(g.acquire("cut/x", "me"), 503, "no-majority", "an acquire without the leader")
    w.heal(leader)
    wait_for("the breaker to close", 30, lambda: w.breaker(leader) == "closed")
    wait_for("acquires to work", 20, lambda: g.acquire("cut/x", "me").status == 200)
    equal(g.release("cut/x", "me").status, 200, "release")


def stopped_leader(w):
    """SIGSTOP: others lead; the stopped one is looked after, and closed when it goes on."""
    g, leader = w.gateway, w.cluster.wait_leader()
    before = w.opened(leader)
    leader.process.stop()
    wait_for("the next leader", 20, lambda: g.acquire("stop/x", "me").status == 200)
    equal(g.release("stop/x", "me").status, 200, "release")
    took = w.reads()
    equal({s for s, _ in took}, {404}, "reads of the others")
    check(sum(s for _, s in took) < 100 * 0.3,
          f"each read pays for the stopped node: {sorted(s for _, s in took)[-10:]}")
    wait_for("attempts at the stopped node to fail", 20, lambda: w.opened(leader) >= before + 2)
    leader.process.cont()
    wait_for("the breaker to close", 40, lambda: w.breaker(leader) == "closed")


def without_a_leader(w):
    """Nobody leads for some seconds: what is asked does not multiply."""
    g = w.gateway
    stopped = w.cluster.followers()
    retries, asked, calls = w.client()["holdfast_client_retries_total"].value(), w.asked(), 0
    for node in stopped:
        node.process.stop()
    end = time.monotonic() + 6
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        while time.monotonic() < end:
            for answer in pool.map(lambda i: g.get(f"/locks/none/{i}"), range(100)):
                problem(answer, 503, "no-majority", "a read without a majority")
                calls += 1
    now = w.client()
    retries = now["holdfast_client_retries_total"].value() - retries
    left = [n for n in w.cluster.nodes.values() if n not in stopped]
    equal(len(left), 1, "nodes that run")
    for node in stopped:
        node.process.cont()
    w.cluster.wait_leader()
    asked = w.asked() - asked
    print(f"{calls} calls without a leader: {retries:.0f} retries, {asked:.0f} requests at the nodes")
    check(retries <= 0.2 * calls + 100, f"{retries} retries of {calls} calls")
    check(asked <= 1.2 * calls + 100, f"{asked} requests of {calls} calls")
    wait_for("reads to work", 20, lambda: {s for s, _ in w.reads(8)} == {404})


def flood(t, c):
    """A flood of reads, and one of acquires, many times what fits: a mount's flocks and its session
    go on, leases are renewed, and nobody holds what another one holds."""
    m = c.mount("m", options="session_ttl=10s,timeout=30s")
    held = os.open(m.path("held"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    term = c.wait_leader().status(5)["term"]
    loads = [subprocess.Popen([t.program("holdfast-bench"), "--json", "--no-baseline", "--seconds", "4",
                               "--timeout", "20000", "--cluster", c.addresses(), "--clients",
                               clients, "--inflight", inflight, mode], stdout=subprocess.PIPE, text=True)
             for mode, clients, inflight in (("read", "4", "4000"), ("cycle", "16", "500"))]
    cycles = 0
    while any(p.poll() is None for p in loads):
        fd = os.open(m.path("other"), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            cycles += 1
        except BlockingIOError:
            check(False, "a flock of a lock that nobody has")
        except OSError as e:
            equal(e.errno, 16, f"a flock under load: {e}")  # EBUSY: refused, at once.
        os.close(fd)
    for p in loads:
        out = [json.loads(line) for line in p.communicate()[0].splitlines()]
        total = [x for x in out if x["op"] == "all"][0]
        equal(total["overlaps"], 0, "two holders at once")
        refused = [x for x in out if x["op"] == "refused"]
        print(f"{total['mode']}: {total['per_second']:.0f}/s, refused "
              f"{refused[0]['per_second'] if refused else 0:.0f}/s, errors {sum(x.get('errors', 0) for x in out)}")
    check(cycles > 0, "no flock went through")
    os.fsync(held)  # ESTALE if the session had been lost.
    os.close(held)
    lost = prometheus.parse(open(m.path(".holdfast/metrics"), encoding="ascii").read())
    equal(lost["holdfast_mount_session_events_total"].value(event="lost"), 0, "losses of the session")
    print(f"{cycles} flocks meanwhile; term {term} before, {c.wait_leader().status(5)['term']} after")
    equal(m.unmount(), 0, "exit of the mount")


def main(t):
    t.need_fuse()
    w = Watched(t)
    cut_off_leader(w)
    stopped_leader(w)
    without_a_leader(w)
    equal(w.gateway.process.end(), 0, "a clean end")
    w.cluster.wait_digests_equal()
    for node in w.cluster.nodes.values():
        equal(node.process.end(), 0, "a clean end")
    c = t.cluster(0)
    for number in (4, 5, 6):
        c.add_node(number)
    flood(t, c.start())
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
