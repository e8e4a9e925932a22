#!/usr/bin/python3
"""A mount that holds 10 000 flocks keeps them with one keepalive a period, as the leader counts
them (`holdfast status --json`), and all of them are held all the time."""
# seconds: 45
# sanitized: no
import errno
import fcntl
import os
import resource
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import prometheus  # noqa: E402
from cluster import check, equal, expect_errno, run_case  # noqa: E402

LOCKS = 10000
THREADS = 8
SESSION_TTL_S = 12
PERIOD_S = SESSION_TTL_S / 3
PERIODS = 5


def metrics(mount):
    with open(mount.path(".holdfast/metrics")) as f:
        return prometheus.parse(f.read())


def take(mount, descriptors):
    """LOCKS flocks; the kernel lets only one create at a time into one directory."""
    def work(n):
        directory = mount.path(f"d{n}")
        os.mkdir(directory)
        for i in range(n, LOCKS, THREADS):
            fd = os.open(f"{directory}/{i}", os.O_CREAT | os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            descriptors[i] = fd

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal(len(descriptors), LOCKS, "flocks taken")


def counted(cluster, leader):
    """The leader's figures, by the CLI."""
    status = cluster.cli_json("status")
    found = [n for n in status["nodes"] if n["id"] == leader.id]
    equal([n["state"] for n in found], ["leader"], "the leader")
    return status, found[0]["metrics"]


def main(t):
    t.need_fuse()
    resource.setrlimit(resource.RLIMIT_NOFILE, (LOCKS + 1000, max(LOCKS + 1000, resource.getrlimit(
        resource.RLIMIT_NOFILE)[1])))
    c = t.cluster(3).start()
    leader = c.wait_leader()
    a = c.mount("a", options=f"session_ttl={SESSION_TTL_S}s,timeout=30s")
    _, before = counted(c, leader)
    descriptors = {}
    take(a, descriptors)
    status, first = counted(c, leader)
    began = time.monotonic()
    sent = metrics(a)["holdfast_client_keepalives_total"].value()
    equal(status["holds"], LOCKS, "holds")
    equal(first["grants"] - before["grants"], LOCKS, "grants")
    time.sleep(PERIODS * PERIOD_S)
    status, last = counted(c, leader)
    sent = metrics(a)["holdfast_client_keepalives_total"].value() - sent
    periods = (time.monotonic() - began) / PERIOD_S
    kept = last["session_keepalives"] - first["session_keepalives"]
    print(f"{LOCKS} flocks, {periods:.1f} periods: {kept} keepalives at the leader, {sent:.0f} sent")
    check(2 <= kept <= periods + 2, f"{kept} keepalives in {periods:.1f} periods")
    check(abs(sent - kept) <= 2, f"{sent} keepalives sent, {kept} counted")
    equal(last["grants"] - first["grants"], 0, "grants while nothing happened")
    equal(last["releases"] - first["releases"], 0, "releases while nothing happened")
    equal(status["holds"], LOCKS, "holds")
    equal(metrics(a)["holdfast_mount_holds"].value(kind="flock"), LOCKS, "flocks of the mount")
    b = c.mount("b", options="timeout=30s")
    for i in range(0, LOCKS, 97):
        fd = os.open(b.path(f"d{i % THREADS}/{i}"), os.O_CREAT | os.O_RDWR)
        expect_errno(errno.EWOULDBLOCK, lambda f=fd: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB), f"lock {i}")
        os.close(fd)
    for fd in descriptors.values():
        os.fsync(fd)  # ESTALE if it had been lost.
        os.close(fd)


run_case(main)
