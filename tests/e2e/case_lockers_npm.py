#!/usr/bin/python3
"""npm's lockfile and proper-lockfile on two mounts.

The packages are those of npm/package-lock.json (lib/npm.py)."""
# seconds: 40
# sanitized: no
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
import npm  # noqa: E402
from cluster import check, equal, run_case, wait_for  # noqa: E402
from lockers import (PATIENCE_S, Holder, Locker, exclusion, handoff, is_refused, lease_runs_out,  # noqa: E402
                     nothing_left)

SOURCES = os.path.join(HERE, "npm")
TTL_S = 3  # Of leases on the mount `short`.
LOST = 78


class Package(Locker):
    refused = 77

    def __init__(self, directory, name):
        self.name = name
        self.node = ["env", f"NODE_PATH={directory}/node_modules", "node", os.path.join(SOURCES, "locker.js"), name]

    def loop(self, path, count, n):
        return [*self.node, "loop", path, count, str(n)]

    def hold(self, path):
        return [*self.node, "hold", path]

    def attempt(self, path):
        return [*self.node, "attempt", path]

    def lock_path(self, path):
        return path + ".lock" if self.name == "proper-lockfile" else path

    def remove(self, mount, path):
        if self.name == "proper-lockfile":
            os.rmdir(mount.path(self.lock_path(path)))
        else:
            os.unlink(mount.path(path))


def stale(locker, short, b):
    """What is older than the package's own `stale` it takes away.  The mount lets it where the holder
    was of the same family on the same host; elsewhere only the end of the lease frees the lock."""
    path = f"{locker.name}-stale"
    holder = Holder(locker.hold(b.path(path))).wait("the holder on the mount with long leases")
    waiter = Holder(locker.hold(short.path(path)))  # Another host.
    time.sleep(2.5)
    check(not waiter.has(), f"{locker.name}: took a lease that had not ended away from another host")
    holder.kill()
    waiter.kill()
    waiter = Holder(locker.hold(b.path(path))).wait("the one that takes the stale lock away")
    equal(b.read(locker.lock_path(path))["pid"] if locker.name != "proper-lockfile" else None,
          str(waiter.pid) if locker.name != "proper-lockfile" else None, "the process that has the lock")
    waiter.release()
    check(not is_refused(locker, short, path), f"{locker.name}: refused a free lock")
    equal([n for n in os.listdir(b.dir) if n.endswith(".STALE")], [], "what was left behind")


def renewed(locker, short, b):
    """proper-lockfile renews by utimes, and recognises its lock by its mtime: held past its ttl."""
    path = f"{locker.name}-renewed"
    holder = Holder(locker.hold(short.path(path))).wait("the holder")
    end = time.monotonic() + 2.2 * TTL_S
    while time.monotonic() < end:
        check(is_refused(locker, b, path), f"{locker.name}: the lease was not renewed")
        equal(holder.popen.poll(), None, f"{locker.name}: exit status of the holder")
        time.sleep(0.3)
    holder.release()
    check(not is_refused(locker, b, path), f"{locker.name}: refused a free lock")


def told(locker, cluster, a, b):
    """proper-lockfile finds out that its lock was broken."""
    path = f"{locker.name}-broken"
    holder = Holder(locker.hold(a.path(path))).wait("the holder")
    name = locker.lock_path(path)
    shown = cluster.cli_json("show", name)
    token = shown["holds"][0]["token"] if "holds" in shown else shown["token"]
    cluster.cli("break", name, "--token", token)
    next_one = Holder(locker.hold(b.path(path))).wait("the next holder")
    equal(wait_for("the old holder to be told", PATIENCE_S, holder.popen.poll), LOST, "exit status of the old holder")
    check(is_refused(locker, a, path), f"{locker.name}: the old holder took the lock away")
    next_one.release()


def main(t):
    t.need_root()
    t.need_fuse()
    directory = npm.install(t, "npm")
    c = t.cluster(3).start()
    a = c.mount("a", options="ttl=40s,timeout=20s,host=host-a")
    b = c.mount("b", options="ttl=40s,timeout=20s,host=host-b")
    short = c.mount("short", options=f"ttl={TTL_S}s,timeout=20s,host=host-short")
    plain, aged, proper = [Package(directory, name) for name in ("lockfile", "lockfile-stale", "proper-lockfile")]
    for locker in (plain, proper):
        exclusion(locker, (a, b), 3, 15)
        handoff(locker, a, b)
        lease_runs_out(locker, short, b, TTL_S, locker.remove)
    stale(aged, short, b)
    stale(proper, short, b)
    renewed(proper, short, b)
    told(proper, c, a, b)
    nothing_left(c)


run_case(main)
