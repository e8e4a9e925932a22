#!/usr/bin/python3
"""The HTTP API under faults: no majority, kill -9 of leaders and gateways under load, stopped nodes;
and never two holders, whether over HTTP, by flock or by O_EXCL on a mount."""
# seconds: 45
# sanitized: no
import fcntl
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import boot_ns, check, equal, run_case, wait_for  # noqa: E402
from gateway import Gateway, problem, read_answer  # noqa: E402

TTL_S = 2
LOCKS = ("x/a", "x/b")


def no_majority(c, g):
    """Each call ends with 503 and Retry-After; nothing is left behind."""
    equal(g.acquire("n/held", "me", ttl=300).status, 200, "held")
    token = g.get("/locks/n/held").json["version"]
    waiter = g.send_acquire("n/held", "waiter", ttl=300, wait=2)
    wait_for("the waiter", 10, lambda: g.get("/locks/n/held").json["waiters"] == 1)
    stopped = c.followers()
    for node in stopped:
        node.process.stop()
    calls = {
        "acquire": lambda: g.acquire("n/new", "me", ttl=300),
        "acquire and wait": lambda: g.acquire("n/new2", "me", ttl=300, wait=1),
        "renew": lambda: g.renew("n/held", "me", ttl=300),
        "release": lambda: g.release("n/held2", "me"),
        "release by token": lambda: g.release("n/held2", "me", token=token),
        "show": lambda: g.get("/locks/n/held"),
        "list": lambda: g.get("/locks?prefix=n/"),
    }
    answers = {}
    threads = [threading.Thread(target=lambda what=what: answers.update({what: calls[what]()}))
               for what in calls]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for what, a in answers.items():
        problem(a, 503, "no-majority", what)
        check(int(a.headers["retry-after"]) >= 1, f"{what}: Retry-After")
    problem(read_answer(waiter), 503, "no-majority", "a waiter")
    waiter.close()
    equal(g.get("/healthz").status, 200, "it is alive")
    wait_for("it not to be ready", 20, lambda: g.get("/readyz").status == 503)
    check("retry-after" in g.get("/readyz").headers, "readyz: Retry-After")
    for node in stopped:
        node.process.cont()
    c.wait_leader()
    g.wait_ready()
    wait_for("calls to work", 20, lambda: g.get("/locks/n/held").status == 200)
    equal(g.get("/locks/n/held").json["version"], token, "what was held is held")
    # What was answered with 503 was not granted, or was given back.
    wait_for("nothing to be left behind", 30,
             lambda: g.get("/locks/n/new").status == 404 and g.get("/locks/n/new2").status == 404)
    wait_for("no waiter to be left", 30, lambda: g.get("/locks/n/held").json["waiters"] == 0)
    equal(g.release("n/held", "me").status, 200, "release")


class Holds:
    """Who believed to hold what, when: (lock, from, to, who, token)."""

    def __init__(self):
        self.mutex = threading.Lock()
        self.list = []
        self.stop = threading.Event()
        self.gone_wrong = []

    def add(self, lock, began, ended, who, token):
        with self.mutex:
            self.list.append((lock, began, ended, who, token))

    def check(self):
        for lock in LOCKS:
            holds = sorted(h[1:] for h in self.list if h[0] == lock)
            latest = None
            for h in holds:
                if latest is not None and h[0] < latest[1]:
                    check(False, f"two holders of {lock}: {latest} and {h}")
                if latest is not None and h[3] and latest[3]:
                    check(h[3] > latest[3], f"tokens of {lock}: {latest} and {h}")
                if latest is None or h[1] > latest[1]:
                    latest = h
        return len(self.list)

    def guarded(self, body, *arguments):
        def run():
            try:
                body(self, *arguments)
            except Exception as e:  # pylint: disable=broad-except
                self.gone_wrong.append(f"{body.__name__}: {e!r}")
        thread = threading.Thread(target=run)
        thread.start()
        return thread


def over_http(holds, gateways, name):
    """Acquire here, release there, and stop believing at the own deadline."""
    n = 0
    while not holds.stop.is_set():
        lock, owner = random.choice(LOCKS), f"{name}.{n}"
        n += 1
        began = boot_ns()
        try:
            a = random.choice(gateways).acquire(lock, owner, ttl=TTL_S, wait=random.choice([0, 0.5, 3]),
                                                timeout=15)
        except OSError:
            continue  # The gateway was killed: whether it is held is not known.
        granted = boot_ns()
        if a.status != 200:
            check(a.status in (409, 503), f"acquire: {a}")
            time.sleep(0.01)
            continue
        token = a.json["token"]
        deadline = began + a.json["expires_from_request_ms"] * 10**6
        if random.random() < 0.3:
            time.sleep(random.random() * 0.05)
            sent = boot_ns()
            try:
                r = random.choice(gateways).renew(lock, owner, ttl=TTL_S)
                if r.status == 200:
                    deadline = sent + r.json["expires_from_request_ms"] * 10**6
                elif r.status == 409:
                    holds.add(lock, granted, min(deadline, sent), owner, token)
                    continue
            except OSError:
                pass
        time.sleep(random.random() * 0.02)
        ended = boot_ns()
        holds.add(lock, granted, min(deadline, ended), owner, token)
        if random.random() < 0.9 and ended < deadline:
            try:
                random.choice(gateways).release(lock, owner, **random.choice([{}, {"token": token}]))
            except OSError:
                pass


def by_flock(holds, mount, name):
    while not holds.stop.is_set():
        lock = random.choice(LOCKS)
        try:
            fd = os.open(mount.path(lock), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                granted = boot_ns()
                time.sleep(random.random() * 0.01)
                # Reading tells that the hold was not lost until now (ESTALE otherwise).
                ended = boot_ns()
                os.pread(fd, 1, 0)
                holds.add(lock, granted, ended, name, None)
            finally:
                os.close(fd)
        except OSError:
            pass
        time.sleep(random.random() * 0.01)


def by_excl(holds, mount, name):
    while not holds.stop.is_set():
        lock = random.choice(LOCKS)
        try:
            fd = mount.acquire(lock)
        except OSError:
            time.sleep(random.random() * 0.01)
            continue
        granted = boot_ns()
        try:
            time.sleep(random.random() * 0.01)
            ended = boot_ns()
            os.pread(fd, 1, 0)
            holds.add(lock, granted, ended, name, None)
            os.unlink(mount.path(lock))
        except OSError:
            pass
        finally:
            os.close(fd)


def main(t):
    c = t.cluster(3).start()
    gateways = [Gateway(c, str(i), options=("--no-auth", "--timeout", "3s")).wait_ready()
                for i in (1, 2)]
    no_majority(c, gateways[0])
    holds = Holds()
    threads = []
    if os.path.exists("/dev/fuse"):
        m = c.mount("a", options=f"ttl={TTL_S}s,timeout=3s")
        os.mkdir(m.path("x"))
        threads += [holds.guarded(by_flock, m, f"flock{i}") for i in range(2)]
        threads += [holds.guarded(by_excl, m, f"excl{i}") for i in range(2)]
    threads += [holds.guarded(over_http, gateways, f"http{i}") for i in range(6)]
    end = time.monotonic() + (25 if not os.environ.get("HOLDFAST_TEST_SLOW") else 40)
    while time.monotonic() < end:
        time.sleep(2)
        leader = c.leader()
        what = random.choice(["kill", "kill", "stop", "gateway"])
        if what == "gateway":
            g = random.choice(gateways)
            g.process.kill()
            g.start()
        elif leader is not None and what == "kill":
            leader.kill()
            time.sleep(0.7)
            leader.start()
        elif leader is not None:
            leader.process.stop()
            time.sleep(TTL_S)
            leader.process.cont()
    holds.stop.set()
    for thread in threads:
        thread.join()
    equal(holds.gone_wrong, [], "workers")
    n = holds.check()
    kinds = {h[3].rstrip("0123456789.") for h in holds.list}
    check(n > 100 and "http" in kinds, f"only {n} holds by {kinds}")
    for g in gateways:
        g.wait_ready()
    wait_for("everything to be free", 30, lambda: all(
        gateways[0].get("/locks/" + lock).status == 404 for lock in LOCKS))
    print(f"{n} holds by {sorted(kinds)}")
    for g in gateways:
        equal(g.process.end(), 0, "a clean end")
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
