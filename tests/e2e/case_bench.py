#!/usr/bin/python3
"""holdfast-bench: every mode runs, its output parses, and it sees no two holders."""
# seconds: 35
# sanitized: no
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import REPORT, check, equal, run_case, wait_for  # noqa: E402


def bench(t, *arguments, code=0):
    argv = [t.program("holdfast-bench"), "--seconds", "1", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False,
                          cwd=t.directory)
    equal(done.returncode, code, f"{' '.join(argv)}: {done.stdout[-600:]}{done.stderr[-600:]}")
    check(not REPORT.search(done.stderr), done.stderr[-2000:])
    return done.stdout


def lines(t, *arguments):
    return [json.loads(line) for line in bench(t, "--json", *arguments).splitlines()]


def verify(out, modes):
    for mode, ops in modes.items():
        for op in ops:
            found = [x for x in out if x.get("mode") == mode and x["op"] == op]
            check(len(found) == 1 and found[0]["n"] > 0, f"{mode}: no {op} in {out}")
            x = found[0]
            check(0 < x["p50_us"] <= x["p99_us"] <= x["p999_us"] <= x["max_us"], f"{mode}: {x}")
            equal(x["errors"], 0, f"errors of {mode} {op}")
        total = [x for x in out if x.get("mode") == mode and x["op"] == "all"]
        equal(total[0]["overlaps"], 0, f"{mode}: two holders at once")


def main(t):
    c = t.cluster(3).start()
    modes = {"cycle": ["acquire", "release"], "read": ["read"], "renew": ["renew"],
             "mix": ["read", "acquire", "release"], "contend": ["acquire", "release", "handoff"]}
    out = lines(t, "--cluster", c.addresses(), "--clients", "8", "--no-baseline", *modes)
    verify(out, modes)
    out = lines(t, "--cluster", c.addresses(), "--clients", "4", "--sessions", "one", "--inflight",
                "4", "--no-baseline", "--pids", str(c.nodes[1].process.pid), "cycle", "contend")
    verify(out, {"cycle": modes["cycle"], "contend": modes["contend"]})
    out = lines(t, "--cluster", c.addresses(), "cycle")
    verify(out, {"cycle": modes["cycle"], "libraft-3": ["commit"], "libraft-3-tuned": ["commit"]})
    ratio = [x for x in out if "ratio" in x]
    check(len(ratio) == 1 and ratio[0]["value"] > 0, f"no ratio in {out}")
    print("acquire / bare libraft:", ratio[0])
    if os.path.exists("/dev/fuse"):
        a, b = c.mount("a", options="ttl=30s"), c.mount("b", options="ttl=30s")
        out = lines(t, "--mount", f"{a.dir},{b.dir}", "--clients", "4", "--no-baseline", *modes)
        verify(out, modes)
        check(os.listdir(a.dir) == [], f"left on the mount: {os.listdir(a.dir)}")
    # What it took is given back, and its sessions are closed.
    wait_for("the locks to be released", 10, lambda: c.wait_leader().status()["locks"] == 0)
    for wrong in (["nonsense"], [], ["--clients", "0", "cycle"], ["cycle"],
                  ["--mount", "/", "--inflight", "4", "cycle"], ["--seconds", "x", "cycle"]):
        bench(t, *wrong, code=2)


if __name__ == "__main__":
    run_case(main)
