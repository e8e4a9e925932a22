#!/usr/bin/python3
"""HTTP beside the native protocol, as a Markdown table: reads, and acquire + release, at 64 connections.

    tools/bench/http_load.py BUILDDIR [--seconds N] [--connections N] [--dir DIR]

Three nodes and one gateway on this machine; the load by wrk (Debian's package) and by holdfast-bench, in
turn, on the same cluster.  A cycle over HTTP: each request takes a lock or gives one back, over as many
connections as are said, each waiting for its answer.  DIR: where the nodes keep their data (the present
directory).  Run it on a quiet machine.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "e2e", "lib"))
import cluster as lib  # noqa: E402
from gateway import Gateway  # noqa: E402

DONE = """
function done(summary, latency, requests)
    local e = summary.errors
    print(string.format("RESULT %d %d %d %d %d", summary.requests, summary.duration, latency:percentile(50),
        latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# Requests go out in this order; of those before the last CONNECTIONS all but very few are answered, so a
# release is for a lock taken long enough ago.
CYCLE = """
local n, behind = 0, %d
local function post(what, i, more)
    return wrk.format("POST", "/locks/" .. what, nil, '{"lock_id":"bench/' .. i .. '","owner_id":"o' .. i .. '"' .. more .. "}")
end
function request()
    n = n + 1
    if n %% 2 == 1 or n <= 2 * behind then
        return post("acquire", n, ',"ttl":60')
    end
    return post("release", n - 2 * behind + 1, "")
end
"""


def wrk(g, script, directory, options, path="/"):
    file = os.path.join(directory, "script.lua")
    with open(file, "w", encoding="utf-8") as f:
        f.write(script + DONE)
    done = subprocess.run(["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-s", file,
                           f"http://127.0.0.1:{g.port}{path}"], capture_output=True, text=True, check=False,
                          timeout=options.seconds + 60)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if not found:
        sys.exit(f"wrk: {done.stdout}{done.stderr}")
    n, took_us, p50, p99, errors = map(int, found.groups())
    return n / took_us * 1e6, p50, p99, errors


def native(t, c, mode, options):
    done = subprocess.run([t.program("holdfast-bench"), "--json", "--no-baseline", "--seconds", str(options.seconds),
                           "--cluster", c.addresses(), "--clients", str(options.connections), mode],
                          capture_output=True, text=True, check=True, timeout=options.seconds + 60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def row(what, per_second, p50_us, p99_us, errors):
    print(f"| {what} | {per_second:.0f} | {p50_us / 1000:.2f} | {p99_us / 1000:.2f} | {errors} |", flush=True)


def measure(t, options):
    c = t.cluster(3).start()
    g = Gateway(c).wait_ready()
    g.acquire("bench/held", "me", ttl=3600)
    print(f"| {options.connections} connections | per second | p50 ms | p99 ms | errors |")
    print("|---|--:|--:|--:|--:|")
    row("HTTP: GET of a held lock", *wrk(g, "", t.directory, options, "/locks/bench/held"))
    read = [x for x in native(t, c, "read", options) if x["op"] == "read"][0]
    row("native: read", read["per_second"], read["p50_us"], read["p99_us"], read["errors"])
    per_second, p50, p99, errors = wrk(g, CYCLE % options.connections, t.directory, options)
    row("HTTP: acquire + release, cycles; times are of one request", per_second / 2, p50, p99, errors)
    both = {x["op"]: x for x in native(t, c, "cycle", options)}
    for op in ("acquire", "release"):
        row(f"native: acquire + release, cycles; times of the {op}", both[op]["per_second"], both[op]["p50_us"],
            both[op]["p99_us"], both[op]["errors"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--dir", default=".")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is needed: apt-get install wrk")
    directory = tempfile.mkdtemp(prefix="holdfast-http-", dir=os.path.abspath(options.dir))
    t = lib.Test(options.build, directory, [])
    try:
        measure(t, options)
    finally:
        for sentence in t.finish():
            print(f"# {sentence}")
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
