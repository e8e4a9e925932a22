#!/usr/bin/python3
"""No thundering herd: a release wakes one waiter and costs the cluster one command and one grant,
however many wait; and a mount that follows nothing costs it no events but those of its own session."""
# seconds: 40
# sanitized: no
import fcntl
import os
import select
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import inotify  # noqa: E402
from cluster import check, equal, run_case, wait_for  # noqa: E402

HANDOFFS = 1000
EX, UN = fcntl.LOCK_EX, fcntl.LOCK_UN


class Waiters:
    """Threads, each with an open file of its own; half of them on each mount.  Each takes the lock
    `rounds` times."""

    def __init__(self, mounts, name, n, rounds):
        self.n_granted = 0
        self.n_inside = 0
        self.wrong = []
        self.threads = [threading.Thread(target=self.run, args=(mounts[i % len(mounts)].path(name), rounds))
                        for i in range(n)]
        for t in self.threads:
            t.start()

    def run(self, path, rounds):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT)
            for _ in range(rounds):
                fcntl.flock(fd, EX)
                self.n_inside += 1  # Under the lock itself.
                if self.n_inside != 1:
                    self.wrong.append("two hold it")
                self.n_granted += 1
                self.n_inside -= 1
                fcntl.flock(fd, UN)
            os.close(fd)
        except OSError as e:
            self.wrong.append(str(e))

    def join(self):
        for t in self.threads:
            t.join()
        check(not self.wrong, f"waiters: {self.wrong[:3]}")


def numbers(cluster):
    """Of the node that leads: status and metrics."""
    s = wait_for("the leader's status", 10, lambda: cluster.wait_leader().status())
    return dict(s["metrics"], waiters=s["waiters"], entries=s["entries"], commands=s["commands"])


def handoffs(cluster, mounts, n, rounds):
    """Let n wait for a held lock, let go of it; returns what it cost the cluster until all had it."""
    name = f"h{n}"
    fd = os.open(mounts[0].path(name), os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, EX)
    waiters = Waiters(mounts, name, n, rounds)
    wait_for(f"{n} to wait", 60, lambda: numbers(cluster)["waiters"] == n)
    before = numbers(cluster)
    began = time.monotonic()
    os.close(fd)
    waiters.join()
    seconds = time.monotonic() - began
    after = numbers(cluster)
    equal(after["waiters"], 0, "waiters left")
    equal(waiters.n_granted, n * rounds, "grants that the waiters saw")
    cost = {k: after[k] - before[k] for k in after}
    print(f"  {n} waiters, {n * rounds} handoffs: {n * rounds / seconds:.0f} a second; for each "
          f"{cost['commands'] / n / rounds:.2f} commands, {cost['entries'] / n / rounds:.2f} entries, "
          f"{cost['grants'] / n / rounds:.2f} grants, {cost['notifications'] / n / rounds:.2f} notifications")
    return cost


def herd(cluster, mounts):
    handoffs(cluster, mounts, 10, HANDOFFS // 10)
    cost = handoffs(cluster, mounts, HANDOFFS, 1)
    # One release each: what else is there is keepalives and reports of nodes.
    extra = cost["session_keepalives"] + 100
    check(cost["commands"] <= HANDOFFS + 1 + extra, f"{cost['commands']} commands for {HANDOFFS} handoffs")
    equal(cost["grants"], HANDOFFS, "grants")
    equal(cost["releases"], HANDOFFS + 1, "releases")
    equal(cost["waits"], 0, "waits that began anew")
    equal(cost["refusals"], 0, "waiters that were woken in vain")
    check(cost["notifications"] <= 4 * HANDOFFS + 100, f"{cost['notifications']} notifications")


def costs_nothing(cluster, a, b):
    """Events that the cluster sends while mount a works and mount b does not care."""
    cycles = 200

    def cost():
        before = numbers(cluster)["notifications"]
        for i in range(cycles):
            os.close(a.acquire("n"))
            os.unlink(a.path("n"))
        return numbers(cluster)["notifications"] - before

    held = [a.acquire(f"held{i}") for i in range(50)]
    for i in range(50):  # Looking at files, or not getting them, is not watching them.
        os.stat(b.path(f"held{i}"))
        check(b.try_acquire(f"held{i}") is None, "two hold it")
    os.listdir(b.dir)
    time.sleep(0.5)
    nobody = cost()
    before = numbers(cluster)["notifications"]
    for i, fd in enumerate(held):
        os.unlink(a.path(f"held{i}"))
        os.close(fd)
    unwatched = numbers(cluster)["notifications"] - before
    check(unwatched <= len(held) + 20, f"{unwatched} events for {len(held)} releases that nobody follows")
    check(nobody <= 2 * cycles + 20, f"{nobody} events for {cycles} cycles that nobody follows")
    with inotify.Inotify() as n:
        n.watch(b.dir, inotify.CREATE)  # Without dirwatch a directory's watchers cost nothing either.
        fd = os.open(b.path("n"), os.O_RDWR | os.O_CREAT)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(300)
        followed = cost()
        check(followed >= nobody + cycles, f"{followed} events, {nobody} without a follower")
        os.close(fd)
        n.quiet(0.2)
    wait_for("the mount to stop following", 30, lambda: cost() <= 2 * cycles + 20)
    print(f"  events for {cycles} cycles on another mount: {nobody}; {followed} while a descriptor is polled")


def main(t):
    t.need_root()
    t.need_fuse()
    threading.stack_size(256 * 1024)
    c = t.cluster(3).start()
    options = "ttl=20s,timeout=20s,session_ttl=20s"
    a = c.mount("a", options=options)
    b = c.mount("b", options=options)
    costs_nothing(c, a, b)
    herd(c, [a, b])
    for m in (a, b):
        equal(m.unmount(), 0, f"exit of mount {m.name}")
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
