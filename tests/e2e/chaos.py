#!/usr/bin/python3
"""48 processes fight for locks on three mounts while nodes die; nothing may go wrong.

    tests/e2e/chaos.py BUILDDIR [--seconds S] [--seed N] [--workers N] [--keys N]

The leader is killed with -9 and restarted (or stopped and resumed) every few seconds; then one
node is stopped past the election timeout and resumed, then a mount past its leases' end; then all
nodes are killed at once and restarted.  Checked: never two holders, tokens strictly increase per
key and over the cluster, no acknowledged grant is lost and no lease ends early (by the holders'
own deadlines), the digests are equal at the end.
"""
import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import cluster as lib  # noqa: E402
from cluster import Failed, check, run_case, wait_for  # noqa: E402

TTL_MS = 4000
VALID_NS = TTL_MS * 1000000 - TTL_MS * 1000000 // 128 - 5000000  # As in chaos_worker.c.


def parse(arguments):
    parser = argparse.ArgumentParser(prog="chaos.py")
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=48)
    parser.add_argument("--keys", type=int, default=24)
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(4), "little")
    return options


class Keepers:
    """Long leases, acquired before the trouble: each must be there afterwards, under its token."""

    def __init__(self, mounts):
        self.held = []
        for i, mount in enumerate(mounts * 2):
            name = f"keeper{i}"
            fd = mount.acquire(name)
            os.write(fd, b"renew 900s")
            os.write(fd, f"note of {name}".encode())
            self.held.append((mounts, name, fd, mount.token(name), f"note of {name}"))

    def verify(self, seconds=10):
        for mounts, name, fd, token, note in self.held:
            for m in mounts:
                fields = wait_for(f"reading {name} on {m.name}", seconds, lambda: try_read(m, name))
                check(fields != "free", f"{name}: a renewed lease of 900 s is gone on {m.name}")
                check(int(fields["token"]) == token, f"{name}: token {fields['token']}, not {token}")
                check(fields.get("note") == note, f"{name}: note {fields.get('note')!r}")
        for _, name, fd, _, _ in self.held:
            os.write(fd, b"renew")

    def release(self):
        for mounts, name, fd, _, _ in self.held:
            os.write(fd, b"release")
            os.close(fd)
            for m in mounts:
                check(m.read(name) is None, f"{name} is still held on {m.name} after its release")


def try_read(mount, name):
    """Fields of the lock, "free", or None when there was no answer in time."""
    try:
        fields = mount.read(name)
    except TimeoutError:
        return None
    return "free" if fields is None else fields


def start_workers(t, c, options, shared):
    worker = t.program("chaos_worker")
    subprocess.run([worker, "init", shared, str(options.keys)], check=True, timeout=10)
    mounts = list(c.mounts.values())
    for key in range(options.keys):
        os.makedirs(mounts[0].path(f"chaos{key}"), exist_ok=True)
    out = []
    for i in range(options.workers):
        argv = [worker, "run", shared, str(options.keys), mounts[i % len(mounts)].dir, str(i),
                str(TTL_MS), str(options.seed * 1000 + i), os.path.join(t.directory, f"w{i}.txt")]
        out.append(lib.Process(t, f"worker{i}", argv))
    return out


def trouble(c, options, say):
    """Kill and stop leaders; stop a node and a mount; kill all.  Returns what was done."""
    rng = random.Random(options.seed)
    done = {"leaders killed": 0, "leaders stopped": 0}
    end = time.monotonic() + options.seconds * 0.65
    while time.monotonic() < end:
        time.sleep(rng.uniform(1.0, 3.5))
        leader = c.wait_leader(20)
        if rng.random() < 0.25:
            say(f"stop leader {leader.id}")
            leader.process.stop()
            time.sleep(rng.uniform(0.2, 1.5))
            leader.process.cont()
            done["leaders stopped"] += 1
            continue
        say(f"kill leader {leader.id}")
        leader.kill()
        time.sleep(rng.uniform(0.1, 1.2))
        leader.start()
        done["leaders killed"] += 1
    c.wait_leader()
    victim = rng.choice([c.wait_leader(), c.followers()[0]])
    say(f"stop node {victim.id}")
    victim.process.stop()
    time.sleep(2.0)
    victim.process.cont()
    # A mount that stands still for longer than its leases: it must not trust them afterwards.
    mount = rng.choice(list(c.mounts.values()))
    say(f"stop mount {mount.name}")
    mount.process.stop()
    time.sleep(TTL_MS / 1000 * 1.2)
    mount.process.cont()
    time.sleep(options.seconds * 0.05)
    say("kill all")
    for node in c.nodes.values():
        node.process.signal(signal.SIGKILL)
    for node in c.nodes.values():
        node.kill()
    time.sleep(rng.uniform(0.5, 2.0))
    for node in c.nodes.values():
        node.start()
    c.wait_leader()
    time.sleep(max(4.0, options.seconds * 0.1))
    return done


class History:
    """What the workers logged, judged as a whole."""

    def __init__(self, directory, n_workers):
        self.violations = []
        self.unexplained = []
        self.holds = []  # [key, token, entered, until, sent]
        self.totals = {}
        for i in range(n_workers):
            self.read(i, os.path.join(directory, f"w{i}.txt"))

    def read(self, worker, path):
        open_hold = None
        finished = False
        with open(path) as f:
            for line in f:
                what, _, rest = line.rstrip("\n").partition(" ")
                if what == "V":
                    self.violations.append(f"worker {worker}: {rest}")
                elif what == "U":
                    self.unexplained.append(f"worker {worker}: {rest}")
                elif what == "E":
                    open_hold = [int(x) for x in rest.split()]
                    open_hold.append(open_hold[3] - VALID_NS)
                    self.holds.append(open_hold)
                elif what == "R" and open_hold:
                    open_hold[3] = max(open_hold[3], int(rest.split()[2]))
                elif what == "X" and open_hold:
                    open_hold[3] = min(open_hold[3], int(rest.split()[2]))
                    open_hold = None
                elif what == "S":
                    finished = True
                    for name, value in re.findall(r"(\w+)=(\d+)", rest):
                        self.totals[name] = self.totals.get(name, 0) + int(value)
        if not finished:
            self.violations.append(f"worker {worker} did not finish its log")

    def judge(self):
        tokens = {}
        by_key = {}
        for key, token, entered, until, _ in self.holds:
            if token in tokens:
                self.violations.append(f"token {token} was given twice: keys {tokens[token]}, {key}")
            tokens[token] = key
            by_key.setdefault(key, []).append((entered, until, token))
        for key, holds in by_key.items():
            holds.sort()
            for (_, until, token), (entered, _, following) in zip(holds, holds[1:]):
                if following <= token:
                    self.violations.append(f"key {key}: token {following} after {token}")
                if entered < until:
                    self.violations.append(f"key {key}: tokens {token} and {following} overlap "
                                           f"by {(until - entered) / 1e6:.3f} ms")
        self.judge_order()
        return self.violations

    def judge_order(self):
        """Over all keys: what was asked for after a grant was seen has a higher token."""
        seen = sorted((entered, token) for _, token, entered, _, _ in self.holds)
        highest = i = 0
        for sent, token in sorted((sent, token) for _, token, _, _, sent in self.holds):
            while i < len(seen) and seen[i][0] < sent:
                highest = max(highest, seen[i][1])
                i += 1
            if token < highest:
                self.violations.append(f"token {token} was asked for after {highest} was seen")


def main(t):
    options = parse(t.arguments)
    t.need_fuse()
    began = time.monotonic()

    def say(text):
        if os.environ.get("HOLDFAST_TEST_VERBOSE"):
            print(f"{time.monotonic() - began:7.2f} {text}", flush=True)

    print(f"seed {options.seed}", flush=True)
    # Small logs, so that nodes come back by images as well.
    c = t.cluster(3, options=["--snapshot-log-entries", "500"]).start()
    for name in ("a", "b", "c"):
        c.mount(name, options=f"ttl={TTL_MS}ms,timeout=3s")
    keepers = Keepers(list(c.mounts.values()))
    workers = start_workers(t, c, options, os.path.join(t.directory, "shared"))
    done = trouble(c, options, say)
    for w in workers:
        w.signal(signal.SIGTERM)
    for w in workers:
        code = w.wait(30)
        check(code == 0, f"{w.name} ended with {code}: {w.text()[-300:]}")
    keepers.verify()
    history = History(t.directory, options.workers)
    violations = history.judge()
    print(f"{len(history.holds)} holds, {history.totals}, {done}")
    for sentence in (violations + history.unexplained)[:20]:
        print("  " + sentence)
    check(not violations, f"{len(violations)} violations")
    check(not history.unexplained, f"{len(history.unexplained)} unexplained errors")
    grants = history.totals.get("grants", 0)
    if grants < options.seconds * 10:
        raise Failed(f"only {grants} grants in {options.seconds} s: no progress")
    c.wait_digests_equal()
    keepers.release()
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
