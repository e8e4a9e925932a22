#!/usr/bin/python3
"""How little the gateway's clients notice of each other, as Markdown: three nodes and a gateway on this
machine; reads and acquires by 8 connections, at rest and beside a crowd.  Medians of three rounds.

    tools/bench/crowd.py BUILDDIR [--seconds N] [--dir DIR]

Needs wrk (Debian: apt-get install wrk).  The target: a p99 within twice its value at rest.
"""
import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "e2e", "lib"))
import cluster as lib  # noqa: E402
from gateway import Gateway, read_answer, request  # noqa: E402

IDLE, SLOW, ROUNDS = 10000, 200, 3
ACQUIRE = """
local n = 0
local who = "%s"
request = function()
    n = n + 1
    return wrk.format("POST", "/locks/acquire", nil,
        '{"lock_id":"' .. who .. '/' .. n %% 1000 .. '","owner_id":"' .. who .. '","ttl":30}')
end
"""


class Crowd:
    """Something beside the measurement, until it is let go."""

    def __init__(self, g, script):
        self.g, self.script, self.sockets, self.process, self.over = g, script, [], None, threading.Event()

    def idle(self):
        for _ in range(IDLE):
            s = self.g.socket()
            s.sendall(request("GET", "/healthz"))
            read_answer(s)
            self.sockets.append(s)

    def slow(self):
        """Heads and bodies that come a byte a second; who is shut for it comes again."""
        data = request("POST", "/locks/acquire", {"lock_id": "slow/x", "owner_id": "me", "ttl": 30})
        self.sockets = [self.g.socket() for _ in range(SLOW)]

        def drip():
            at = 0
            while not self.over.wait(1):
                for i, s in enumerate(self.sockets):
                    try:
                        s.send(data[at % (len(data) - 1):][:1])
                    except OSError:
                        self.sockets[i] = self.g.socket()
                at += 1
        threading.Thread(target=drip, daemon=True).start()

    def flood(self):
        """Acquires of one owner_id, far over its rate, as fast as 8 connections can."""
        self.process = subprocess.Popen(
            ["wrk", "-t1", "-c8", "-d600s", "-s", self.script, f"http://127.0.0.1:{self.g.port}/"],
            stdout=subprocess.DEVNULL)

    def end(self):
        self.over.set()
        for s in self.sockets:
            s.close()
        lib.wait_for("the crowd to be gone", 60, lambda: self.g.metric("holdfast_gateway_connections") < 100)
        if self.process:
            self.process.terminate()
            self.process.wait(10)


def wrk(g, seconds, path, script=None):
    argv = ["wrk", "-t1", "-c8", f"-d{seconds}s", "--latency", *(["-s", script] if script else []),
            f"http://127.0.0.1:{g.port}{path}"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    scale = {"us": 0.001, "ms": 1, "s": 1000}
    at = {p: float(v) * scale[u] for p, v, u in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", out)}
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return (float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), at["50"], at["99"],
            int(bad.group(1)) if bad else 0)


def script(t, who):
    path = os.path.join(t.directory, who + ".lua")
    with open(path, "w", encoding="ascii") as f:
        f.write(ACQUIRE % who)
    return path


def measure(t, seconds):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * IDLE + 1000)), hard))
    c = t.cluster(3).start()
    g = Gateway(c, options=("--no-auth", "--rate-owner", "100000/s:100000")).wait_ready()
    limited = Gateway(c, "2", options=("--no-auth", "--rate-owner", "20/s:20")).wait_ready()
    g.acquire("held/x", "holder", ttl=3600)
    reads, good, bad = "/locks/held/x", script(t, "good"), script(t, "flood")
    print("| beside 8 connections | what | a second | p50 / p99 ms | p99 against rest | others than 200 |\n"
          + "|---" * 6 + "|")
    found = {}
    crowds = (("nobody", g, None), ("10 000 idle connections", g, Crowd.idle),
              ("200 connections that send a byte a second", g, Crowd.slow),
              ("nobody (the gateway with the rate)", limited, None),
              ("a flood over the rate, 8 connections", limited, Crowd.flood))
    for _ in range(ROUNDS):  # In turn, as other work on the machine comes and goes.
        for what, gateway, how in crowds:
            crowd = Crowd(gateway, bad)
            if how:
                how(crowd)
            for op, arguments in (("GET", (reads,)), ("acquire", ("/", good))):
                if op == "GET" or gateway is g:  # Else its owner_id would be over the rate as well.
                    found.setdefault((what, op), []).append(wrk(gateway, seconds, *arguments))
            crowd.end()
    rest = {}
    for (what, op), runs in found.items():
        n, p50, p99, others = (statistics.median(x) for x in zip(*runs))
        if what.startswith("nobody"):
            rest[op] = p99
        print(f"| {what} | {op} | {n:.0f} | {p50:.2f} / {p99:.2f} | {p99 / rest[op]:.1f} | {others:.0f} |")
    for p in (g, limited):
        p.process.end()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("build")
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--dir", default=".")
    options = p.parse_args()
    directory = tempfile.mkdtemp(prefix="hf-crowd-", dir=options.dir)
    t = lib.Test(options.build, directory, [])
    try:
        measure(t, options.seconds)
    finally:
        for sentence in t.finish():
            print(f"# {sentence}")
        shutil.rmtree(directory, ignore_errors=True)


main()
