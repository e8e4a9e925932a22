#!/usr/bin/python3
"""tests/chaos notices a system that breaks its promise: clocks that drift by far more than the allowance
of a lease, of the nodes (leases end early) and of a mount (it believes too long); and two mounts
of clusters that know nothing of each other."""
# seconds: 30
# sanitized: no
import argparse
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "lib"), os.path.join(HERE, "..", "linear")]
from cluster import check, run_case, wait_for  # noqa: E402
import history  # noqa: E402
import report  # noqa: E402
import rig  # noqa: E402

PPM = 350000  # More than a third.


def options(**more):
    return argparse.Namespace(nodes=3, seed=1, ttl=900, session_ttl=2000, workers=18, http=2,
                              native=1, snapshot_entries=500, faults=[], **more)


def run(t, name, seconds, sabotage):
    """What is wrong with the history of a run."""
    t.directory = os.path.join(t.directory, name)
    os.mkdir(t.directory)
    r = rig.Rig(t, options())
    r.start()
    sabotage(r)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        r.tend()
        time.sleep(0.1)
    r.stop_clients()
    for m in r.c.mounts.values():
        m.unmount()
    for p in [n.process for n in r.c.nodes.values()] + [g.process for g in r.gateways]:
        p.end()
    r.network.close()
    t.directory = os.path.dirname(t.directory)
    _, wrong = report.judge(history.read(r.directory, 0.004))
    return wrong


def notices(what, wrong, *sentences):
    for s in sentences:
        check(any(s in line for line in wrong), f"{what}: no '{s}' in {len(wrong)} lines: {wrong[:5]}")
    print(f"{what}: noticed ({len(wrong)} lines)")


def fast_nodes(r):
    for n in r.c.nodes:
        r.clocks[f"node{n}"].set(0, PPM)


def slow_mount(r):
    """One that is cut off and has a slow clock believes in its lease when another has it already."""
    r.clocks["mount-a"].set(0, -PPM)
    a, b = r.c.mounts["a"], r.c.mounts["b"]
    e = r.events
    n = e.invoke("one", "acquire", "slow", by="oexcl", ttl_ms=r.ttl_ms)
    fd = a.acquire("slow")
    e.answer("one", n, "ok", token=a.token("slow"))
    for node in r.c.nodes.values():
        r.network.link(a.place, node.place, drop=1)
        r.network.link(node.place, a.place, drop=1)
    n2 = e.invoke("two", "acquire", "slow", by="oexcl", ttl_ms=r.ttl_ms)
    other = wait_for("the end of the lease", 10, lambda: b.try_acquire("slow"))
    e.answer("two", n2, "ok", token=b.token("slow"))
    n3 = e.invoke("one", "check", "slow", by="oexcl", of=n)
    os.fsync(fd)  # The daemon's own judgement.
    e.answer("one", n3, "ok")
    os.close(other)
    r.network.link(None, None)
    os.close(fd)


def two_clusters(t):
    """The workers of two mounts, whose locks have the same names, as one history."""
    directory = os.path.join(t.directory, "two")
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    os.chmod(t.directory, 0o755)
    workers = []
    for i in (1, 2):
        c = t.cluster(0)
        c.add_node(i)
        c.start()
        mount = c.mount(f"x{i}", options="ttl=900ms,timeout=3s,allow_other")
        for k in range(2):
            os.mkdir(mount.path(f"oexcl{k}"))
            os.chmod(mount.path(f"oexcl{k}"), 0o777)
        for k in range(2):
            uid = 30000 + 10 * i + k
            workers.append(rig.Process(t, f"w{uid}", [
                t.program("linear_worker"), mount.dir, "oexcl", "2", "900", str(uid), str(uid),
                os.path.join(directory, f"w{uid}.hist")]))
    time.sleep(2)
    for w in workers:
        w.signal(signal.SIGTERM)
    for w in workers:
        w.wait(20)
    return report.judge(history.read(directory))[1]


def main(t):
    t.need_root()
    t.need_fuse()
    notices("nodes with fast clocks", run(t, "fast", 5, fast_nodes), "two holders",
            "NOT linearizable")
    notices("a mount with a slow clock", run(t, "slow", 0, slow_mount), "NOT linearizable")
    path = t.directory
    while path != "/tmp" and path != "/":
        os.chmod(path, os.stat(path).st_mode | 0o111)
        path = os.path.dirname(path)
    notices("two clusters", two_clusters(t), "two holders", "was given to", "NOT linearizable")


if __name__ == "__main__":
    run_case(main)
