#!/usr/bin/python3
"""Clients that speak the native protocol by hand (e2e/lib/wire.py), and write their history.

    native_client.py --nodes HOST:PORT,... --name PREFIX --clients N --locks NAME,... --ttl MS
                     --seed N --log FILE [--tls DIR]      until SIGTERM

They read at any node, follower or leader, and repeat a command that was not answered under its
old number, which must give its first result.
"""
import argparse
import os
import random
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e", "lib")]
import wire  # noqa: E402
from history import Writer  # noqa: E402

stopping = threading.Event()
SESSION_TTL_MS = 10000


class Client:
    def __init__(self, options, writer, number):
        self.name = f"{options.name}{number}"
        self.nodes = [(host, int(port)) for host, port in
                      (n.rsplit(":", 1) for n in options.nodes.split(","))]
        self.locks = options.locks.split(",")
        self.ttl_ms = options.ttl
        self.random = random.Random(options.seed * 1000 + number)
        self.w = writer
        self.tls = options.tls
        self.leader = None       # A connection.
        self.session = 0
        self.seq = 0

    def connect(self, node):
        return wire.Client(*node, timeout=2.0, client_host=self.name, tls=self.tls)

    def drop(self):
        if self.leader:
            self.leader.close()
        self.leader = None

    def find_leader(self):
        """Connect to a node; whether it leads its answer shows."""
        if self.leader is None:
            self.leader = self.connect(self.random.choice(self.nodes))
        return self.leader

    def open_session(self):
        for _ in range(20):
            if stopping.is_set():
                return False
            try:
                c = self.find_leader()
                c.session_id = 0
                self.session = c.open_session(SESSION_TTL_MS)["session_id"]
                self.seq = 0
                if self.session:
                    return True
            except (OSError, wire.Failure, IndexError):
                pass
            self.drop()
            stopping.wait(0.05)
        return False

    def command(self, op, lock, **numbers):
        """The result; None: nobody knows; "never": it surely was not executed."""
        self.seq += 1
        may_be_done = False
        for _ in range(6):
            try:
                c = self.find_leader()
                c.session_id = self.session
            except (OSError, wire.Failure, IndexError):
                self.drop()
                stopping.wait(0.05)
                continue
            try:
                r = c.command(op, [lock.encode()], timeout=2.0, seq=self.seq, **numbers)
                if r["code"] != "no session":
                    return r
                self.session = 0
                break
            except wire.Failure as e:
                if e.code not in ("NOT_LEADER", "BUSY", "REFUSED"):
                    may_be_done = True
                self.drop()
                stopping.wait(0.02)
            except (OSError, IndexError, KeyError):
                may_be_done = True
                self.drop()
        return None if may_be_done else "never"

    def finish(self, n, r, refusals, **good):
        if r is None:
            self.w.answer(self.name, n, "unknown")
            return None
        if r == "never":
            self.w.answer(self.name, n, "refused", why="never")
            return False
        if r["code"] == "ok":
            self.w.answer(self.name, n, "ok", **good)
            return True
        if r["code"] in refusals:
            self.w.answer(self.name, n, "refused", why=refusals[r["code"]])
        else:
            self.w.answer(self.name, n, "refused", error=str(r["code"]).replace(" ", "-"))
        return False

    def cycle(self):
        lock = self.random.choice(self.locks)
        for _ in range(self.random.randrange(3)):
            self.read(self.random.choice(self.locks))
        if not self.session and not self.open_session():
            return
        n = self.w.invoke(self.name, "acquire", lock, by="native", ttl_ms=self.ttl_ms)
        r = self.command("acquire", lock, f2=1, f7=self.name.encode(), f9=2, f13=self.ttl_ms)
        token = r["token"] if isinstance(r, dict) else None
        if not self.finish(n, r, {"conflict": "held"}, token=token):
            stopping.wait(self.random.uniform(0.0, 0.05))
            return
        for _ in range(self.random.choice((0, 0, 1, 3))):
            stopping.wait(self.random.uniform(0, self.ttl_ms / 6000))
            m = self.w.invoke(self.name, "renew", lock, by="native", of=n, token=token,
                              ttl_ms=self.ttl_ms)
            r = self.command("renew", lock, f8=token, f13=self.ttl_ms)
            if self.finish(m, r, {"not held": "gone", "not owner": "gone"}) is False or not self.session:
                return
        if self.random.random() < 0.9:
            m = self.w.invoke(self.name, "release", lock, by="native", of=n, token=token)
            self.finish(m, self.command("release", lock, f8=token), {"not held": "gone", "not owner": "gone"})

    def read(self, lock):
        """At any node, on a connection of its own."""
        n = self.w.invoke(self.name, "read", lock, by="native")
        try:
            with self.connect(self.random.choice(self.nodes)) as c:
                nodes = c.query(1, lock.encode(), timeout=2.0).get(3, [])
                tokens = [wire.one(wire.decode(h), 1) for raw in nodes
                          for h in wire.decode(raw).get(11, [])]
            self.w.answer(self.name, n, "ok", tokens=",".join(f"{t}/?" for t in tokens))
        except (OSError, wire.Failure, IndexError, KeyError):
            self.w.answer(self.name, n, "unknown")

    def run(self):
        while not stopping.is_set():
            self.cycle()
        self.drop()


def main():
    parser = argparse.ArgumentParser()
    for name in ("nodes", "name", "locks", "log"):
        parser.add_argument("--" + name, required=True)
    for name in ("clients", "ttl", "seed"):
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--tls")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    writer = Writer(options.log, time.monotonic_ns)
    clients = [Client(options, writer, i + 1) for i in range(options.clients)]
    threads = [threading.Thread(target=c.run, daemon=True) for c in clients]
    for t in threads:
        t.start()
    stopping.wait()
    for t in threads:
        t.join(20)


if __name__ == "__main__":
    main()
