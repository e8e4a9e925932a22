#!/usr/bin/python3
"""Snapshots with 100 000 leases held: how long the nodes' loops stood still, by their own figures.
The time is reported, not judged; that all locks survive is judged."""
# seconds: 40
# sanitized: no
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402

LOCKS = 20000 if os.environ.get("HOLDFAST_TEST_SLOW") else 100000


def main(t):
    locks = int(t.arguments[0]) if t.arguments else LOCKS
    c = t.cluster(3).start()
    began = time.monotonic()
    argv = [t.program("holdfast-bench"), "--cluster", c.addresses(), "--locks", str(locks),
            "--directories", "64", "--ttl", "3600", "--json", "--no-baseline", "fill"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=max(100, locks // 2000),
                          check=False)
    equal(done.returncode, 0, f"fill: {done.stdout[-500:]}{done.stderr[-500:]}")
    line = [json.loads(x) for x in done.stdout.splitlines()][0]
    equal(line["n"], locks, "leases taken")
    print(f"{locks} leases in {time.monotonic() - began:.1f} s")
    before = {n.id: n.status(10)["snapshots"] for n in c.nodes.values()}
    with c.wait_leader().connect() as w:
        w.admin(6, timeout=60)  # COMPACT
    wait_for("a snapshot", 60, lambda: any(
        n.status(10)["snapshots"] > before[n.id] or n.status(10)["snapshot_index"] > 0
        for n in c.nodes.values()))
    c.wait_digests_equal(60)
    for node in c.nodes.values():
        s = node.status(10)
        cpu_us = s["metrics"]["stall_cpu_max_us"]
        print(f"node {node.id} ({s['state']}): longest stall {s['stall_max_us'] / 1000:.1f} ms, of "
              f"its own doing {cpu_us / 1000:.1f} ms at most, while "
              f"taking a snapshot {s['snapshot_stall_max_us'] / 1000:.1f} ms; the last one took "
              f"{s['snapshot_ms']} ms; {s['snapshots']} taken; resident "
              f"{s['resident_bytes'] >> 20} MiB")
        equal(s["holds"], locks, f"holds on node {node.id}")
    digest = c.wait_digests_equal(60)
    # From disk: the image and the log behind it.
    for node in c.nodes.values():
        node.process.end(60)
    began = time.monotonic()
    for node in c.nodes.values():
        node.start()
    c.wait_leader(60)
    print(f"restart with {locks} leases: {time.monotonic() - began:.1f} s to a leader")
    c.wait_digests_equal(60)
    for node in c.nodes.values():
        equal(node.status(10)["holds"], locks, f"holds on node {node.id} after the restart")
    check(digest, "a digest")


if __name__ == "__main__":
    run_case(main)
