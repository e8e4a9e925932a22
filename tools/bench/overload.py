#!/usr/bin/python3
"""What happens at ten times the load that fits, as Markdown: three nodes on this machine, natively.

    tools/bench/overload.py BUILDDIR [--seconds N] [--dir DIR]

For each kind of load: as many requests in flight as keep the cluster busy, then ten times as many.
Who is refused comes back after 100 ms.  "Bystander": a lock taken and given back by one other
client, once a moment, and its session of 3 s, all the while.
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

RUNS = [("nobody else", None, None)] + [
    (f"{mode}, {clients * inflight} in flight", [mode], (clients, inflight))
    for mode in ("cycle", "read", "mix") for clients, inflight in ((16, 64), (16, 640), (160, 64))]


def bench(t, seconds, cluster, *arguments):
    argv = [t.program("holdfast-bench"), "--json", "--no-baseline", "--seconds", str(seconds),
            "--cluster", cluster, *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def figures(process, seconds):
    out, _ = process.communicate(timeout=seconds + 60)
    return {x["op"]: x for x in map(json.loads, out.splitlines())}


def cell(x):
    return f"{x['per_second']:.0f} | {x['p50_us'] / 1000:.1f} / {x['p99_us'] / 1000:.1f}" if x else "0 | "


def measure(t, options):
    c = t.cluster(3).start()
    leader = c.wait_leader()
    print("| load | answered a second | p50 / p99 ms | refused a second | p50 / p99 ms | errors | "
          "bystander: cycles a second | p50 / p99 ms | leader changed |\n" + "|---" * 9 + "|")
    for heading, mode, size in RUNS:
        term = leader.status(5)["term"]
        other = bench(t, options.seconds, c.addresses(), "cycle")
        x = {}
        if mode:
            x = figures(bench(t, options.seconds, c.addresses(), "--clients", str(size[0]), "--inflight",
                              str(size[1]), *mode), options.seconds)
        by = figures(other, options.seconds)
        main_op = x.get("acquire") or x.get("read")
        errors = sum(v.get("errors", 0) for v in [*x.values(), *by.values()])
        leader = c.wait_leader()
        changed = "yes" if leader.status(5)["term"] != term else "no"
        print(f"| {heading} | {cell(main_op)} | {cell(x.get('refused'))} | {errors} | "
              f"{cell(by.get('acquire'))} | {changed} |", flush=True)
    print(f"\nlongest stall of the leader's loop: {leader.status(5)['stall_max_us'] / 1000:.1f} ms")
    for node in c.nodes.values():
        node.process.end()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("build")
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--dir", default=".")
    options = p.parse_args()
    directory = tempfile.mkdtemp(prefix="hf-overload-", dir=options.dir)
    t = lib.Test(options.build, directory, [])
    try:
        measure(t, options)
    finally:
        for sentence in t.finish():
            print(f"# {sentence}")
        shutil.rmtree(directory, ignore_errors=True)


main()
