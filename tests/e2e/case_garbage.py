#!/usr/bin/python3
"""Random bytes, oversized frames and broken messages on both ports: the nodes stay up, and what
they hold does not change."""
# seconds: 12
import os
import random
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case  # noqa: E402
import wire  # noqa: E402
from wire import field, varint  # noqa: E402


def frame(body):
    return struct.pack("<I", len(body)) + body


def throw(host, port, data, read=False):
    """Send and forget; the node may close at any moment."""
    try:
        with socket.create_connection((host, port), timeout=2) as s:
            s.settimeout(0.3)
            s.sendall(data)
            if read:
                while s.recv(65536):
                    pass
    except OSError:
        pass


def closed_by_node(host, port, data):
    with socket.create_connection((host, port), timeout=2) as s:
        s.settimeout(5)
        try:
            s.sendall(data)
            while s.recv(65536):
                pass
            return True
        except TimeoutError:
            return False
        except OSError:
            return True


def some_message(rng):
    """A ClientFrame or PeerFrame, more or less: right keys, wrong contents."""
    body = b""
    for _ in range(rng.randrange(1, 6)):
        number = rng.randrange(1, 14)
        kind = rng.randrange(4)
        if kind == 0:
            body += varint(number << 3) + varint(rng.getrandbits(rng.choice([1, 8, 31, 63, 64])))
        elif kind == 1:
            body += field(number, rng.randbytes(rng.randrange(0, 60)))
        elif kind == 2:
            inner = b"".join(field(rng.randrange(1, 28), rng.getrandbits(63)) for _ in range(4))
            body += field(number, inner)
        else:
            body += varint(number << 3 | 2) + varint(rng.getrandbits(40)) + b"x"
    return body


def hello(rng):
    return field(2, field(1, 1) + field(2, 1) + field(3, "garbage"))


def peer_hello(rng):
    return field(1, field(1, 1) + field(2, 1) + field(3, rng.getrandbits(60)) +
                 field(4, rng.randrange(1, 9)) + field(5, rng.randrange(1, 9)))


def shower(rng, host, client_port, raft_port, n):
    for _ in range(n):
        kind = rng.randrange(5)
        port, greet = ((client_port, hello) if rng.randrange(2) else (raft_port, peer_hello))
        if kind == 0:
            throw(host, port, rng.randbytes(rng.randrange(1, 4000)))
        elif kind == 1:
            throw(host, port, frame(greet(rng)) + rng.randbytes(rng.randrange(1, 4000)), True)
        elif kind == 2:
            throw(host, port, frame(greet(rng)) + b"".join(
                frame(some_message(rng)) for _ in range(rng.randrange(1, 20))), True)
        elif kind == 3:
            throw(host, port, struct.pack("<I", rng.getrandbits(32)) + rng.randbytes(100))
        else:
            whole = frame(greet(rng)) + frame(some_message(rng))
            throw(host, port, whole[:rng.randrange(len(whole))])


def bad_commands(c):
    """Well-formed frames with commands that no client would send."""
    with c.wait_leader().connect() as w:
        w.open_session()
        long_path = b"/".join([b"x" * 200] * 6)
        for path in (b"", b"/", b"a//b", b"a/../b", b".", b".holdfast", b"a\0b", b"x" * 256,
                     long_path, b"/".join([b"d"] * 17)):
            equal(w.acquire(path, b"me")["code"], "invalid", f"acquire of {path[:20]!r}")
        for what, numbers in (("no mode", {"f7": b"me", "f13": 1000}),
                              ("mode 9", {"f7": b"me", "f9": 9, "f13": 1000}),
                              ("ttl 1 ms", {"f7": b"me", "f9": 2, "f13": 1}),
                              ("ttl for ever", {"f7": b"me", "f9": 2, "f13": wire.UINT64_MAX}),
                              ("owner of 129 bytes", {"f7": b"o" * 129, "f9": 2, "f13": 1000}),
                              ("note of 257 bytes",
                               {"f7": b"me", "f9": 2, "f13": 1000, "f18": b"n" * 257}),
                              ("range upside down",
                               {"f7": b"me", "f9": 2, "f13": 1000, "f11": 9,
                                "f12": wire.UINT64_MAX})):
            try:
                r = w.command("acquire", [b"bad"], **numbers)
                equal(r["code"], "invalid", what)
            except wire.Failure as e:
                equal(e.code, "BAD_REQUEST", what)
        # Ops that only a leader may put into the log.
        for op in (16, 17, 18, 19, 0, 99):
            wire.OP["odd"] = op
            try:
                r = w.command("odd", [b"bad"], f24=99, f25=9, f27=77)
                check(r["code"] == "invalid", f"op {op} of a client: {r}")
            except wire.Failure as e:
                equal(e.code, "BAD_REQUEST", f"op {op} of a client")


def main(t):
    rng = random.Random(int.from_bytes(os.urandom(4), "little"))
    c = t.cluster(3).start()
    with c.wait_leader().connect() as w:
        w.open_session(60000)
        token = w.acquire(b"kept", b"me", 60000)["token"]
        before = w.status()
        for node in c.nodes.values():
            shower(rng, node.host, node.client_port, node.raft_port, 250)
            for port in (node.client_port, node.raft_port):
                check(closed_by_node(node.host, port, struct.pack("<I", 0)),
                      f"node {node.id}: a frame of length 0 is not refused")
                check(closed_by_node(node.host, port, struct.pack("<I", 0x7FFFFFFF) + b"x" * 64),
                      f"node {node.id}: a frame of 2 GiB is not refused")
        for node in c.nodes.values():
            check(node.alive(), f"node {node.id} died: {node.process.text()[-800:]}")
        after = w.status()
        equal(after["term"], before["term"], "term after the garbage")
        equal(after["locks"], before["locks"], "locks after the garbage")
    bad_commands(c)
    with c.wait_leader().connect() as w:
        equal(w.tokens(b"kept"), [token], "the lock that was held all the time")
    # A peer hello with another protocol version, and one of a node that isn't one.
    for body in (field(1, field(1, 99) + field(2, 99) + field(4, 2) + field(5, 1)),
                 field(1, field(1, 1) + field(2, 1) + field(4, 77) + field(5, 1))):
        throw("127.0.0.1", c.nodes[1].raft_port, frame(body), True)
    # Many idle connections don't hinder the others.
    idle = [socket.create_connection(("127.0.0.1", c.nodes[1].client_port)) for _ in range(200)]
    check(c.nodes[1].status() is not None, "node 1 does not answer beside 200 idle connections")
    for s in idle:
        s.close()
    time.sleep(0.2)
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
