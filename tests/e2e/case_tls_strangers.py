#!/usr/bin/python3
"""TLS: nobody gets in under another's name, half-open connections are in nobody's way, and an
authority is replaced under load."""
# seconds: 60
# sanitized: no
import os
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import wire  # noqa: E402
from cluster import check, equal, expect_errno, run_case, wait_for  # noqa: E402

HALF_OPEN = 2000


def context_of(directory, server=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory + "/ca.crt")
    context.load_cert_chain(directory + "/tls.crt", directory + "/tls.key")
    context.set_alpn_protocols(["holdfast/1"])
    return context


def peer_hello(c, directory, says, to, image):
    """A hello to the raft port of a node; what it answers, or None when it closes."""
    node = c.nodes[to]
    with socket.create_connection((c.host, node.raft_port), 10) as plain, \
            context_of(directory).wrap_socket(plain) as s:
        hello = b"".join(wire.field(n, v) for n, v in
                         ((1, 1), (2, 1), (4, says), (5, to), (7, int(image)),
                          (8, "127.0.0.1:9"), (9, "127.0.0.1:9")))
        hello += wire.varint(6 << 3 | 1) + struct.pack("<Q", 4711)
        body = wire.field(1, hello)
        s.sendall(struct.pack("<I", len(body)) + body)
        data = b""
        try:
            while len(data) < 4 or len(data) < 4 + struct.unpack_from("<I", data)[0]:
                part = s.recv(65536)
                if not part:
                    return None
                data += part
        except OSError:
            return None
        return wire.decode(wire.one(wire.decode(data[4:]), 1))


def names(c):
    """A certificate is good for one name on the nodes' port, images included."""
    for image in (False, True):
        for identity, says in (("client/test", 2), ("mount/host-a", 2), ("gateway/g", 2),
                               ("node/2", 3), ("node/9", 3), ("client/1", 1)):
            answer = peer_hello(c, c.tls(identity), says, 1, image)
            check(answer is not None, f"{identity} is answered")
            equal(wire.one(answer, 11), 5, f"{identity} as node {says}, image {image}: refusal")
        # Its own name is not refused for its certificate; but it is not that data directory.
        equal(wire.one(peer_hello(c, c.tls("node/2"), 2, 1, image), 11), 4, "node 2, wiped")


class FakeNode:
    """Speaks to clients as node 1 does, but for its certificate."""

    def __init__(self, t, directory):
        self.port = t.free_port("127.0.0.1")
        self.context = context_of(directory, server=True)
        self.server = socket.create_server(("127.0.0.1", self.port))
        self.asked = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                plain, _ = self.server.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(plain, server_side=True) as s:
                    s.settimeout(5)
                    s.recv(65536)
                    hello = b"".join(wire.field(n, v) for n, v in
                                     ((1, 1), (2, 1), (3, "fake"), (4, 1), (5, 1)))
                    body = wire.field(2, hello)
                    s.sendall(struct.pack("<I", len(body)) + body)
                    while s.recv(65536):
                        self.asked += 1
            except OSError:
                pass


def fake_nodes(t, c):
    for identity in ("client/test", "mount/host-a", "node/2"):
        fake = FakeNode(t, c.tls(identity))
        done = c.cli("ls", "--timeout", "2s", cluster=f"127.0.0.1:{fake.port}", ok=False)
        check(done.returncode != 0 and "its certificate is that of " + identity in done.stderr,
              f"a false node with the certificate of {identity}: {done.stderr}")
        equal(fake.asked, 0, "requests that the false node got")
        fake.server.close()


def words(t, c):
    """What people are told who forgot something."""
    done = subprocess.run([t.program("holdfast"), "status", "--cluster", c.addresses(1),
                           "--timeout", "2s"], capture_output=True, text=True, timeout=30,
                          check=False)
    check(done.returncode == 69 and "it speaks TLS" in done.stderr, done.stderr)
    directory = os.path.join(t.directory, "mine")
    os.mkdir(directory)
    done = subprocess.run([t.program("mount.holdfast"), c.addresses(), directory, "-f", "-o",
                           f"host=other,tls={c.tls('mount/host-a')}"], capture_output=True,
                          text=True, timeout=40, check=False)
    equal(done.returncode, 32, "a mount for another host than its certificate's")
    check("mount/host-a" in done.stderr and "host=other" in done.stderr, done.stderr)
    many = "client/x=" + ",".join(f"h{i}" for i in range(17))
    done = subprocess.run([t.program("holdfast"), "cert", t.directory + "/many", many],
                          capture_output=True, text=True, timeout=30, check=False)
    check(done.returncode == 2 and not os.path.exists(t.directory + "/many"), done.stderr)
    nodes = c.cli_json("status")["nodes"]
    equal([n.get("error") for n in nodes if n.get("error")], [], "errors in status")
    equal(len(nodes), 3, "nodes that status asked")


def client_hello():
    """Bytes that begin a good handshake."""
    out = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["holdfast/1"])
    t = context.wrap_bio(ssl.MemoryBIO(), out)
    try:
        t.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


class HalfOpen(threading.Thread):
    """Keeps connections open that get nowhere: silent ones, half a hello, a hello and no more."""

    def __init__(self, ports):
        super().__init__(daemon=True)
        self.hello = client_hello()
        self.ports, self.sockets, self.n_made, self.stopped = ports, {}, 0, False

    def open(self, i):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", self.ports[i % len(self.ports)]))
        self.sockets[i] = (s, time.monotonic())
        self.n_made += 1

    def tend(self, i):
        """Say one's part once connected; when closed by the node, begin anew."""
        s, _ = self.sockets[i]
        part = (b"", self.hello[:100], self.hello)[i // len(self.ports) % 3]
        try:
            if part:
                s.send(part)
                self.sockets[i] = (s, 0)
            while s.recv(65536):
                pass
            raise ConnectionError
        except BlockingIOError:
            pass
        except OSError:
            s.close()
            self.open(i)

    def run(self):
        for i in range(HALF_OPEN):
            self.open(i)
        while not self.stopped:
            for i in range(HALF_OPEN):
                self.tend(i)
                if i % 100 == 0:
                    time.sleep(0.005)
        for s, _ in self.sockets.values():
            s.close()


def caught_up(c, node):
    """It has everything that the leader has now.  (Under load no two are ever at one index.)"""
    index = c.wait_leader().wait_ready()["commit_index"]
    wait_for(f"node {node.id} to catch up", 40,
             lambda: (node.status() or {"applied_index": 0})["applied_index"] >= index)


def half_open(c, load):
    """Locks go on, new clients get in, and a node that was killed finds the others again."""
    ports = [p for n in c.nodes.values() for p in (n.raft_port, n.client_port)]
    crowd = HalfOpen(ports)
    crowd.start()
    try:
        wait_for("the crowd", 30, lambda: crowd.n_made > HALF_OPEN)
        before = load.n
        wait_for("locks beside the crowd", 30, lambda: load.n > before + 30)
        for _ in range(5):
            check(c.cli_json("status")["leader"] in c.nodes, "a new client gets in")
        node = c.followers()[0]
        node.kill()
        node.start()
        wait_for("the killed node to find the others", 40,
                 lambda: node.process.last_text().count("peer connected") >= 2)
        caught_up(c, node)
        check(crowd.n_made > 2 * HALF_OPEN, "half-open connections were ended by the nodes")
    finally:
        crowd.stopped = True
        crowd.join(30)


class Load(threading.Thread):
    def __init__(self, mount):
        super().__init__(daemon=True)
        self.mount, self.n, self.errors, self.stopped = mount, 0, [], False

    def run(self):
        while not self.stopped:
            try:
                os.close(os.open(self.mount.path("load"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                os.unlink(self.mount.path("load"))
                self.n += 1
            except OSError as e:
                self.errors.append(e)


def tell(process, words_of_it):
    """SIGHUP, and wait until it has read its certificates."""
    before = process.text().count(words_of_it)
    process.signal(signal.SIGHUP)
    wait_for(f"{process.name} to read its certificates", 10,
             lambda: process.text().count(words_of_it) > before)


def rotation(t, c, load, a, b):
    """A new authority, first beside the old one, then alone: who did not renew is out, at once."""
    new = os.path.join(t.directory, "new")
    who = [f"node/{i}" for i in c.nodes] + ["mount/host-a"]
    subprocess.run([t.program("holdfast"), "cert", new, *who], check=True, timeout=30,
                   stdout=subprocess.DEVNULL)
    with open(c.certificates + "/ca.crt", encoding="utf-8") as f:
        old_ca = f.read()
    with open(new + "/ca.crt", encoding="utf-8") as f:
        new_ca = f.read()

    def trust(identity, text):
        with open(c.tls(identity) + "/ca.crt.tmp", "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(c.tls(identity) + "/ca.crt.tmp", c.tls(identity) + "/ca.crt")

    def all_read():
        for node in c.nodes.values():
            tell(node.process, "certificate loaded")
        tell(a.process, "certificates reloaded")

    b_is = "mount/host-b"
    for identity in who + [b_is, "client/test"]:
        trust(identity, old_ca + new_ca)
    all_read()
    tell(b.process, "certificates reloaded")
    for identity in who:
        for file in ("tls.key", "tls.crt"):
            shutil.copy(os.path.join(new, identity.replace("/", "-"), file), c.tls(identity))
    all_read()
    equal(sum(n.process.text().count("not accepted any more") for n in c.nodes.values()), 0,
          "connections closed while both authorities are trusted")
    fd = b.acquire("of-b")
    os.write(fd, b"keep")
    before = load.n
    wait_for("load to go on", 20, lambda: load.n > before + 20)
    # A mount must have connected anew by now, or it is still known by its old certificate.
    for i in c.nodes:
        c.nodes[i].kill()
        c.nodes[i].start()
        caught_up(c, c.nodes[i])
    equal(b.read("of-b")["host"], "host-b", "b is still trusted")
    before = load.n
    wait_for("load to go on", 30, lambda: load.n > before + 20)
    for identity in who:
        trust(identity, new_ca)
    all_read()
    wait_for("the old certificate to be refused", 20,
             lambda: any("not accepted any more" in n.process.text() and
                         "certificate=mount/host-b" in n.process.text()
                         for n in c.nodes.values()))
    expect_errno((110, 116), lambda: b.acquire("of-b-too"), "b, whose authority is gone")
    before = load.n
    wait_for("load of the renewed mount to go on", 30, lambda: load.n > before + 20)
    os.close(fd)
    # A mount stays what it began as.
    shutil.copytree(c.tls("mount/host-a"), t.directory + "/kept")
    for file in ("tls.key", "tls.crt"):
        shutil.copy(os.path.join(new, "node-1", file), c.tls("mount/host-a"))
    tell(a.process, "not reloaded")
    for identity in ("client/test", "mount/host-b"):  # The end of the test is to be a proper one.
        subprocess.run([t.program("holdfast"), "cert", new, identity], check=True, timeout=30,
                       stdout=subprocess.DEVNULL)
        for file in ("tls.key", "tls.crt", "ca.crt"):
            shutil.copy(os.path.join(new, identity.replace("/", "-"), file), c.tls(identity))
    tell(b.process, "certificates reloaded")
    wait_for("b to be let in again", 40, lambda: b.try_acquire("again") is not None)


def main(t):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    c = t.cluster(3, tls=True).start()
    a, b = c.mount("a"), c.mount("b")
    names(c)
    fake_nodes(t, c)
    words(t, c)
    load = Load(a)
    load.start()
    try:
        half_open(c, load)
        rotation(t, c, load, a, b)
    finally:
        load.stopped = True
        load.join(30)
    c.wait_digests_equal(30)
    print(f"{load.n} locks, {len(load.errors)} errors")


if __name__ == "__main__":
    run_case(main)
