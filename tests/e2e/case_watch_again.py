#!/usr/bin/python3
"""Watching in bad times: a look at a lock that had no answer is repeated; a mount that outlives its
cluster hears of what happens in the one made anew; what the notifier's thread asks of its own mount
never reaches the cluster."""
# seconds: 40
# sanitized: no
import fcntl
import os
import re
import select
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import inotify  # noqa: E402
from cluster import check, equal, run_case  # noqa: E402
from inotify import CREATE, DELETE, DELETE_SELF  # noqa: E402


def poll_now(fd, seconds=0.0):
    p = select.poll()
    p.register(fd, select.POLLIN)
    return dict(p.poll(seconds * 1000)).get(fd, 0)


def metric(m, pattern):
    with open(m.path(".holdfast/metrics")) as f:
        found = re.search(r"^" + pattern + r" (\d+)$", f.read(), re.M)
    check(found, f"no metric {pattern}")
    return int(found[1])


def look_repeated(c, a, b):
    """The lock changed before anybody polled, and when somebody does, the node that the mount has
    subscribed to has no majority to read by."""
    holder = a.acquire("p")
    fd = os.open(b.path("p"), os.O_RDONLY)
    os.unlink(a.path("p"))
    os.close(holder)
    others = c.followers()
    for node in others:
        node.process.stop()
    equal(poll_now(fd), 0, "before it was looked at")
    time.sleep(2.5)  # The look's time, timeout=, is over.
    for node in others:
        node.process.cont()
    equal(poll_now(fd, 20), select.POLLIN, "poll, when there is a majority again")
    os.close(fd)
    c.wait_leader()


def replays_ask_nobody(a, d):
    """dircache=0: the kernel asks for the root's attributes at each replay."""
    with inotify.Inotify() as n:
        n.watch(d.dir, CREATE | DELETE)
        query = r'holdfast_client_request_duration_seconds_count\{kind="query"\}'
        before = metric(d, query)
        for i in range(40):
            os.close(a.acquire(f"r{i}"))
            os.unlink(a.path(f"r{i}"))
        n.wait(DELETE, "r39", seconds=20)
        asked = metric(d, query) - before
        check(asked < 40, f"{asked} questions to the cluster for 80 replayed changes")


def no_metric_twice(m):
    """Requests that only a newer kernel knows: statx for the time of birth, O_TMPFILE."""
    subprocess.run(["stat", "--format=%w", m.dir], check=True, timeout=20, stdout=subprocess.DEVNULL)
    try:
        os.close(os.open(m.dir, os.O_TMPFILE | os.O_RDWR))
    except OSError:
        pass
    with open(m.path(".holdfast/metrics")) as f:
        names = [line.rsplit(" ", 1)[0] for line in f if not line.startswith("#")]
    twice = {name for name in names if names.count(name) > 1}
    check(not twice, f"metrics that come twice: {twice}")


def made_anew(c, a, b, d):
    """The new cluster's log is shorter than the position up to which events were seen."""
    for i in range(300):
        os.close(a.acquire("long"))
        os.unlink(a.path("long"))
    old = os.open(b.path("old"), os.O_RDONLY | os.O_CREAT)
    os.pread(old, 100, 0)
    equal(poll_now(old, 0.3), 0, "a free lock")
    for node in c.nodes.values():
        node.kill()
    for node in c.nodes.values():
        shutil.rmtree(node.data)
        node.start()
    c.wait_leader()
    for m in (a, b, d):  # Each has a session in the new one.
        n = m.process.text().count('event="ended"')
        fd = os.open(m.path("own" + m.name), os.O_RDONLY | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.close(fd)
        check(n > 0 or 'event="ended"' in m.process.text(), f"mount {m.name} has its old session")
    index = c.leader().status()["applied_index"]
    check(index < 300, f"the new cluster's log is as long as the old one's: {index}")
    fd = os.open(a.path("flock"), os.O_RDONLY | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    waiter = subprocess.Popen(["flock", b.path("flock"), "true"])
    time.sleep(1)
    equal(waiter.poll(), None, "flock of what another mount has")
    begin = time.monotonic()
    os.close(fd)
    equal(waiter.wait(30), 0, "flock, when it was released")
    print(f"  handed over after {(time.monotonic() - begin) * 1000:.0f} ms")
    holder = a.acquire("old")
    equal(poll_now(old, 20), select.POLLIN, "poll of a file that was read in the old cluster")
    with inotify.Inotify() as n:
        w = n.watch(b.path("old"), DELETE_SELF)
        time.sleep(0.5)
        os.unlink(a.path("old"))
        os.close(holder)
        os.close(old)
        n.wait(DELETE_SELF, wd=w)
        n.watch(d.dir, CREATE)
        os.close(a.acquire("new"))
        n.wait(CREATE, "new")
    index = c.leader().status()["applied_index"]
    check(index < 300, f"the new cluster's log is as long as the old one's: {index}")


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options="ttl=20s,timeout=5s")
    b = c.mount("b", options="ttl=20s,timeout=1s")
    d = c.mount("d", options="ttl=20s,timeout=60s,dirwatch,dircache=0")
    no_metric_twice(a)
    replays_ask_nobody(a, d)
    look_repeated(c, a, b)
    made_anew(c, a, b, d)
    for node in c.nodes.values():
        node.process.stop()
    # Unmounting waits for nobody, for all the timeout= of 60 s.
    begin = time.monotonic()
    equal(d.unmount(), 0, "exit of a mount whose nodes are frozen")
    check(time.monotonic() - begin < 20, "unmounting waited for nodes that are frozen")


if __name__ == "__main__":
    run_case(main)
