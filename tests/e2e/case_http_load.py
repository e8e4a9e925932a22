#!/usr/bin/python3
"""The table of HTTP beside the native protocol: it can be made, and no request of its load fails."""
# seconds: 8
# sanitized: no
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
from cluster import Skip, check, equal, run_case  # noqa: E402


def main(t):
    if not shutil.which("wrk"):
        raise Skip("wrk is needed")
    done = subprocess.run([os.path.join(HERE, "..", "..", "tools", "bench", "http_load.py"), t.build, "--seconds", "1",
                           "--dir", t.directory], capture_output=True, text=True, timeout=100, check=False)
    equal(done.returncode, 0, f"{done.stdout}{done.stderr}")
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    equal(len(rows), 5, f"rows: {done.stdout}")
    for what, per_second, p50, p99, errors in rows:
        check(int(per_second) > 0 and 0 < float(p50) <= float(p99), f"{what}: {done.stdout}")
        # A request may overtake one on another connection: then a lock is given back before it is taken.
        check(int(errors) <= (50 if "cycles" in what else 0), f"{what}: {done.stdout}")


if __name__ == "__main__":
    run_case(main)
