#!/usr/bin/python3
"""A read on a follower is never older than an acknowledged write, leader changes or not."""
# seconds: 30
# sanitized: no
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import Failed, check, equal, run_case  # noqa: E402
import wire  # noqa: E402

WRITES = 2400
KILLS = 3
PATH = b"follower/read"


class Writer:
    """One session that writes at whoever leads, repeating until it is answered."""

    def __init__(self, c):
        self.c = c
        self.connection = None
        self.session_id = 0
        self.seq = 0
        self.persist(lambda w: w.open_session(60000))

    def persist(self, function):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if self.connection is None:
                    self.connection = self.c.wait_leader().connect()
                    self.connection.session_id = self.session_id
                result = function(self.connection)
                self.session_id = self.connection.session_id
                return result
            except (OSError, wire.Failure):
                if self.connection:
                    self.connection.close()
                self.connection = None
                time.sleep(0.02)
        raise Failed("no write was answered for 20 s")

    def acquire(self):
        self.seq += 1
        seq = self.seq
        r = self.persist(lambda w: w.acquire(PATH, b"writer", 60000, seq=seq))
        equal(r["code"], "ok", "acquire")
        return r["token"]

    def release(self, token):
        self.seq += 1
        seq = self.seq
        r = self.persist(lambda w: w.release(PATH, token, seq=seq))
        equal(r["code"], "ok", "release")


class Reader:
    """Reads at one certain node."""

    def __init__(self, node):
        self.node = node
        self.connection = None
        self.reads = 0
        self.refused = 0

    def read(self):
        """Tokens, or None when this node can't answer now."""
        if not self.node.alive():
            self.connection = None
            return None
        try:
            if self.connection is None:
                self.connection = self.node.connect(2.0)
            tokens = self.connection.tokens(PATH, timeout=3.0)
            self.reads += 1
            return tokens
        except (OSError, wire.Failure):
            self.refused += 1
            self.connection = None
            return None

    def expect(self, tokens, what):
        got = self.read()
        check(got is None or got == tokens,
              f"node {self.node.id} shows {got} after {what} was acknowledged: {tokens} is right")


def native(c):
    writer = Writer(c)
    readers = [Reader(n) for n in c.nodes.values()]
    last = 0
    restart = None
    for i in range(WRITES // 2):
        if i and i % (WRITES // 2 // (KILLS + 1)) == 0:
            restart = c.wait_leader()
            restart.kill()
        elif restart is not None and not restart.alive() and i % 20 == 0:
            restart.start()
        token = writer.acquire()
        check(token > last, f"token {token} after {last}")
        last = token
        readers[i % 3].expect([token], "an acquire")
        readers[(i + 1) % 3].expect([token], "an acquire")
        writer.release(token)
        readers[i % 3].expect([], "a release")
        readers[(i + 2) % 3].expect([], "a release")
    for node in c.nodes.values():
        if not node.alive():
            node.start()
    reads = [r.reads for r in readers]
    print(f"{WRITES} writes, reads per node {reads}, not answered {[r.refused for r in readers]}")
    check(min(reads) > WRITES // 4, f"too few reads were answered: {reads}")


def through_mounts(c, n):
    """The same with create/unlink on one mount and stat/read on another."""
    a = c.mount("a", options="ttl=30s,timeout=8s")
    b = c.mount("b", options="ttl=30s,timeout=8s")
    for i in range(n):
        if i == n // 2:
            victim = c.wait_leader()
            victim.kill()
            victim.start()
        fd = a.acquire("seen")
        token = os.getxattr(fd, "user.holdfast.token").decode()
        check(os.path.exists(b.path("seen")), f"round {i}: created on a, absent on b")
        equal(str(b.token("seen")), token, f"round {i}: token on b")
        os.close(fd)
        os.unlink(a.path("seen"))
        check(not os.path.exists(b.path("seen")), f"round {i}: unlinked on a, still on b")
        check(b.read("seen") is None, f"round {i}: unlinked on a, readable on b")


def main(t):
    c = t.cluster(3).start()
    native(c)
    c.wait_digests_equal()
    if os.path.exists("/dev/fuse"):
        through_mounts(c, 400)


if __name__ == "__main__":
    run_case(main)
