#!/usr/bin/python3
"""The chaos test can fail: with two mounts of two clusters that know nothing of each other, the
workers must find two holders, and tokens that don't increase."""
# seconds: 8
# sanitized: no
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, run_case  # noqa: E402
from chaos import History, parse, start_workers  # noqa: E402


def main(t):
    t.need_fuse()
    options = parse(["--workers", "8", "--keys", "3"])
    one = t.cluster(1).start()
    one.mount("a", options="ttl=4000ms,timeout=3s")
    two = t.cluster(0)
    two.add_node(2)
    two.start()
    one.mounts["b"] = two.mount("b", options="ttl=4000ms,timeout=3s")
    for key in range(options.keys):
        os.mkdir(one.mounts["b"].path(f"chaos{key}"))
    workers = start_workers(t, one, options, os.path.join(t.directory, "shared"))
    time.sleep(3)
    for w in workers:
        w.signal(signal.SIGTERM)
    for w in workers:
        w.wait(30)
    found = History(t.directory, options.workers).judge()
    for what in ("two holders", "overlap", "given twice", "after"):
        check(any(what in sentence for sentence in found),
              f"no '{what}' among {len(found)} violations: {found[:5]}")


if __name__ == "__main__":
    run_case(main)
