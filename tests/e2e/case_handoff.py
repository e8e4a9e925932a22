#!/usr/bin/python3
"""tools/bench/handoff.py runs, and no grant comes before the holder before was told of its loss."""
# seconds: 20
# sanitized: no
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
from cluster import REPORT, check, equal, run_case  # noqa: E402


def main(t):
    t.need_root()
    t.need_fuse()
    script = os.path.join(HERE, "..", "..", "tools", "bench", "handoff.py")
    done = subprocess.run([script, t.build, "--rounds", "20", "--dir", t.directory], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=130)
    print(done.stdout)
    equal(done.returncode, 0, f"exit status: {done.stderr[-2000:]}")
    check(not REPORT.search(done.stdout), "a sanitizer's report")
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    for row in rows:
        best, median, p99, worst = map(float, row[2:])
        check(best <= median <= p99 <= worst, f"not in order: {row}")
        check(int(row[1]) >= 20, f"too few: {row}")
    for word in ("killed", "LOCK_UN", "ESTALE at its holder ", "ESTALE at its holders"):
        equal(len([row for row in rows if word in row[0]]), 1, f"rows with {word}")


run_case(main)
