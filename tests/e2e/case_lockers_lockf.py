#!/usr/bin/python3
"""A C program with lockf(3) on two mounts."""
# seconds: 15
# sanitized: no
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import run_case  # noqa: E402
from lockers import Locker, death, exclusion, handoff, nothing_left, session_runs_out  # noqa: E402


class Lockf(Locker):
    name = "c-lockf"
    refused = 77

    def __init__(self, program):
        self.program = program

    def loop(self, path, count, n):
        return [self.program, "loop", path, count, str(n)]

    def hold(self, path):
        return [self.program, "hold", path]

    def attempt(self, path):
        return [self.program, "attempt", path]


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options="timeout=20s,session_ttl=2s,host=host-a")
    b = c.mount("b", options="timeout=20s,session_ttl=2s,host=host-b")
    locker = Lockf(t.program("lockf_locker"))
    exclusion(locker, (a, b), 3, 200)
    handoff(locker, a, b)
    death(locker, a, b)
    nothing_left(c)
    session_runs_out(locker, c, a, b)


run_case(main)
