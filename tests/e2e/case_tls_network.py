#!/usr/bin/python3
"""TLS on a bad network: records in tiny pieces, an image for a new node, flipped bits."""
# seconds: 60
# sanitized: no
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from torture import Torture  # noqa: E402

SLOW = bool(os.environ.get("HOLDFAST_TEST_SLOW"))
# Python in between is slow: not so many heartbeats.
# The log is kept so short that a new node needs an image.
OPTIONS = ["--heartbeat-ms", "60", "--election-timeout-ms", "1000", "--snapshot-log-bytes", "65536"]


TTL_S = 3.0
DRIFT_S = TTL_S / 128 + 0.005  # A holder stops believing so much earlier.


class Exclusion:
    """Threads that take one lock through several mounts.

    A grant is believed from the return of open() until it is given up, or, when a call hangs for so
    long, until its lease ends as its holder must count it: from before it asked.  No two of these
    spans may meet, and tokens must rise with them.
    """

    def __init__(self, mounts):
        self.mounts, self.n, self.broken = mounts, 0, []
        self.grants = []  # (from, until, token, mount)
        self.n_outlived = 0  # Their holder went on for longer than the lease: a call hung.
        self.stopped = False
        self.mutex = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(m,)) for m in mounts]
        for thread in self.threads:
            thread.start()

    def once(self, mount):
        asked = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            fd = os.open(mount.path("one"), os.O_CREAT | os.O_EXCL | os.O_RDWR)
        except OSError:
            time.sleep(0.002)
            return
        begin = time.clock_gettime(time.CLOCK_BOOTTIME)
        token = None
        try:
            fields = dict(line.split("=", 1) for line in os.read(fd, 4096).decode().splitlines())
            token = int(fields["token"])
        except OSError:
            pass  # ESTALE: it was told that it lost the lock.
        done = time.clock_gettime(time.CLOCK_BOOTTIME)
        end = min(done, asked + TTL_S - DRIFT_S)
        try:
            os.unlink(mount.path("one"))
        except OSError:
            pass  # It goes on in the background, or the lease ends.
        os.close(fd)
        with self.mutex:
            self.n += 1
            self.n_outlived += end < done
            if begin < end:
                self.grants.append((begin, end, token, mount.name))

    def judge(self):
        """All grants so far, in the order of their beginnings."""
        with self.mutex:
            grants = sorted(self.grants)
        token, last = 0, None
        for grant in grants:
            if last is not None and grant[0] < last[1]:
                self.broken.append(f"two holders at once: {last} and {grant}")
            if last is None or grant[1] > last[1]:
                last = grant
            if grant[2] is not None:
                if grant[2] <= token:
                    self.broken.append(f"token {token} before {grant}")
                token = grant[2]
        equal(self.broken[:5], [], "what broke exclusion")

    def run(self, mount):
        while not self.stopped:
            self.once(mount)

    def stop(self):
        self.stopped = True
        for thread in self.threads:
            thread.join(60)
        self.judge()
        return self.n


def behind(t, c, node, nodes_way, clients_way):
    """Start a node whose advertised ports are those of relays."""
    raft, client = t.free_port("127.0.0.1"), t.free_port("127.0.0.1")
    nodes_way.listen(node.raft_port, raft)
    clients_way.listen(node.client_port, client)
    node.start(options=["--listen", f"127.0.0.1:{raft},127.0.0.1:{client}"])
    check(c.certificates is not None, "TLS is on")


def pieces(c, load, nodes_way, clients_way):
    nodes_way.mode = clients_way.mode = "pieces"
    before = load.n
    wait_for("locks through tiny pieces", 60, lambda: load.n > before + 50)
    check(c.cli_json("status")["leader"] in c.nodes, "status through tiny pieces")


def image(t, c, nodes_way, clients_way):
    """A node joins and gets its table as an image: more than one chunk of it."""
    with c.wait_leader().connect(20) as client:
        client.open_session(60000)
        for i in range(1500):
            client.acquire(f"many/{i:05}-{'x' * 200}", b"o" * 60, 600000, timeout=20)
    c.cli("snapshot", "save", os.path.join(t.directory, "saved"))  # Another long stream.
    node = c.add_node(4)
    node.joining = True
    behind(t, c, node, nodes_way, clients_way)
    c.cli("member", "add", node.member, timeout=90)
    wait_for("the image to arrive", 60, lambda: "image received" in node.process.text())
    c.cli("member", "promote", 4, timeout=90)
    c.cli("member", "remove", 4, timeout=90)
    node.process.end()


def flips(t, c, load, nodes_way, clients_way):
    before = load.n
    for way in (nodes_way, clients_way):
        way.mode = "flip"
    end = time.monotonic() + (40 if SLOW else 20)
    while time.monotonic() < end:
        time.sleep(1)
        load.judge()
        for p in t.processes:
            check(p.alive() or p.expected or p.name == "node4", f"{p.name} is alive")
    check(nodes_way.n_flips > 0 and clients_way.n_flips > 0, "bits were flipped")
    for way in (nodes_way, clients_way):
        way.mode = None
    middle = load.n
    wait_for("locks after the flips", 60, lambda: load.n > middle + 20)
    logs = "".join(n.process.text() for n in c.nodes.values())
    check("TLS connection failed" in logs, "damage is told")
    check("refuses our certificate" not in logs, "damage is not taken for a refusal")
    print(f"{nodes_way.n_flips} + {clients_way.n_flips} bits flipped, {middle - before} locks meanwhile")


def main(t):
    c = t.cluster(3, tls=True, options=OPTIONS)
    nodes_way, clients_way = Torture(seed=1), Torture(seed=2)
    for node in c.nodes.values():
        behind(t, c, node, nodes_way, clients_way)
    c.wait_leader()
    mounts = [c.mount(name, options="ttl=3s,timeout=10s,session_ttl=3s") for name in ("a", "b")]
    load = Exclusion(mounts)
    try:
        wait_for("locks", 30, lambda: load.n > 20)
        pieces(c, load, nodes_way, clients_way)
        image(t, c, nodes_way, clients_way)
        flips(t, c, load, nodes_way, clients_way)
    finally:
        n = load.stop()
    c.wait_digests_equal(30, [c.nodes[i] for i in (1, 2, 3)])
    print(f"{n} locks in all, {load.n_outlived} that outlived their lease in a call")


if __name__ == "__main__":
    run_case(main)
