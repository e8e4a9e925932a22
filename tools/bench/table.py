#!/usr/bin/python3
"""The bench's table, as Markdown: clusters of 1 and 3 nodes on this machine, natively and through
mounts, and bare libraft beside them.

    tools/bench/table.py BUILDDIR [--seconds N] [--nodes 1,3] [--dir DIR]

Needs root (mounts).  DIR is where the nodes and the baseline keep their data: the disk to be
measured (the present directory).  Run it on a quiet machine.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "e2e", "lib"))
import cluster as lib  # noqa: E402

# What is run: heading, arguments, through the mount?
RUNS = [
    ("1 client", ["--clients", "1", "cycle"], False),
    ("64 clients, a session each", ["--clients", "64", "cycle"], False),
    ("64 in flight, one session",
     ["--sessions", "one", "--clients", "1", "--inflight", "64", "cycle"], False),
    ("512 in flight, 8 sessions", ["--clients", "8", "--inflight", "64", "cycle"], False),
    ("64 clients", ["--clients", "64", "read"], False),
    ("70:30, 8 sessions, 512 in flight", ["--clients", "8", "--inflight", "64", "mix"], False),
    ("one key, 16 clients", ["--clients", "16", "contend"], False),
    ("64 clients", ["--clients", "64", "renew"], False),
    ("mount, 1 client", ["--clients", "1", "cycle"], True),
    ("mount, 64 clients, 64 directories", ["--clients", "64", "--directories", "64", "cycle"], True),
    ("mount, 64 clients, 64 directories", ["--clients", "64", "--directories", "64", "read"], True),
    ("mount, one key, 16 clients", ["--clients", "16", "contend"], True),
]


def bench(t, arguments, options):
    argv = [t.program("holdfast-bench"), "--json", "--no-baseline", "--seconds",
            str(options.seconds), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False,
                          timeout=options.seconds + 60)
    if done.returncode != 0:
        print(f"# {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def row(nodes, heading, mode, out):
    total = next((x for x in out if x["op"] == "all"), None)
    for x in out:
        if x["op"] == "all" or (mode == "contend" and x["op"] != "handoff"):
            continue
        cpu = f"{total['server_cpu_us_per_op']:.1f}" if total["server_cpu_us_per_op"] else ""
        print(f"| {nodes} | {mode}: {heading} | {x['op']} | {x['per_second']:.0f} | {x['p50_us']:.0f} "
              f"| {x['p99_us']:.0f} | {x['p999_us']:.0f} | {x['max_us']:.0f} | {x['errors']} | {cpu} |",
              flush=True)


def measure(t, nodes, options):
    c = t.cluster(nodes).start()
    pids = ",".join(str(n.process.pid) for n in c.nodes.values())
    leader = c.wait_leader()
    mount = c.mount(f"bench{nodes}", options="ttl=30s")
    p50 = {}
    for heading, arguments, through_mount in RUNS:
        target = ["--mount", mount.dir] if through_mount else ["--cluster", c.addresses()]
        out = bench(t, [*target, "--pids", pids, *arguments], options)
        mode = arguments[-1]
        row(nodes, heading, mode, out)
        if heading in ("1 client", "mount, 1 client"):
            p50[heading] = next(x["p50_us"] for x in out if x["op"] == "acquire")
    mount.unmount()
    status = leader.status(5)
    for node in c.nodes.values():
        node.process.end()
    base = []
    for clients in ("1", "64"):
        out = bench(t, ["--nodes", str(nodes), "--clients", clients, "--baseline-dir", t.directory,
                        "baseline"], options)
        for x in out:
            if x["op"] == "commit" and (clients == "1" or x["in_flight"] == 64):
                row(nodes, f"{x['in_flight']} in flight", x["mode"], [x, {"op": "all",
                    "server_cpu_us_per_op": 0}])
                if x["in_flight"] == 1:
                    base.append(x["p50_us"])
    for heading, value in p50.items():
        print(f"# {nodes} nodes, {heading}: acquire p50 {value:.0f} us / bare libraft commit p50 "
              f"{min(base):.0f} us = {value / min(base):.2f}")
    print(f"# {nodes} nodes: longest stall of the leader's loop {status['stall_max_us'] / 1000:.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--nodes", default="1,3")
    parser.add_argument("--dir", default=".")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="holdfast-table-", dir=os.path.abspath(options.dir))
    t = lib.Test(options.build, directory, [])
    print("| nodes | what | operation | a second | p50 us | p99 | p99.9 | max | errors | server CPU us |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    try:
        for nodes in options.nodes.split(","):
            measure(t, int(nodes), options)
            t.directory = os.path.join(directory, "next")
            os.makedirs(t.directory, exist_ok=True)
    finally:
        t.directory = directory
        for sentence in t.finish():
            print(f"# {sentence}")
        if not lib.mounts_below(directory):
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
