#!/usr/bin/python3
"""Python's fcntl.flock, fcntl.lockf and open-file-description locks on two mounts."""
# seconds: 25
# sanitized: no
import fcntl
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case  # noqa: E402
from lockers import (Holder, Locker, death, exclusion, handoff, is_refused, nothing_left,  # noqa: E402
                     session_runs_out)

SCRIPT = r"""
import fcntl, struct, sys
kind, do, path = sys.argv[1:4]
def ofd(f, how):
    what = {fcntl.LOCK_UN: fcntl.F_UNLCK}.get(how, fcntl.F_WRLCK)
    command = fcntl.F_OFD_SETLK if how & fcntl.LOCK_NB else fcntl.F_OFD_SETLKW
    fcntl.fcntl(f, command, struct.pack("hhqqi4x", what, 0, 0, 0, 0))
lock = {"flock": fcntl.flock, "lockf": fcntl.lockf, "ofd": ofd}[kind]
if do == "loop":
    count, n = sys.argv[4], int(sys.argv[5])
    with open(path, "w") as f:
        for _ in range(n):
            lock(f, fcntl.LOCK_EX)
            with open(count) as c:
                was = int(c.read())
            with open(count, "w") as c:
                c.write(str(was + 1))
            lock(f, fcntl.LOCK_UN)
elif do == "hold":
    with open(path, "w") as f:
        lock(f, fcntl.LOCK_EX)
        print("locked", flush=True)
        sys.stdin.readline()
else:
    with open(path, "w") as f:
        try:
            lock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(77)
"""


class Python(Locker):
    refused = 77

    def __init__(self, kind):
        self.kind = kind
        self.name = "python-" + kind

    def run(self, *arguments):
        return [sys.executable, "-c", SCRIPT, self.kind, *map(str, arguments)]

    def loop(self, path, count, n):
        return self.run("loop", path, count, n)

    def hold(self, path):
        return self.run("hold", path)

    def attempt(self, path):
        return self.run("attempt", path)


def kinds_exclude_each_other(a, b):
    """A hold is a hold, whatever it was taken with; O_EXCL too."""
    kinds = [Python(k) for k in ("flock", "lockf", "ofd")]
    for first in kinds:
        holder = Holder(first.hold(a.path("mixed"))).wait(first.name)
        for second in kinds:
            check(is_refused(second, b, "mixed"), f"{second.name} beside {first.name}")
        check(b.try_acquire("mixed") is None, f"O_EXCL beside {first.name}")
        holder.release()
    lease = a.acquire("mixed")
    for second in kinds:
        check(is_refused(second, b, "mixed"), f"{second.name} beside O_EXCL")
    os.unlink(a.path("mixed"))
    os.close(lease)


def main(t):
    t.need_root()
    t.need_fuse()
    equal(fcntl.F_OFD_SETLK, 37, "F_OFD_SETLK of this Python")
    c = t.cluster(3).start()
    a = c.mount("a", options="timeout=20s,session_ttl=2s,host=host-a")
    b = c.mount("b", options="timeout=20s,session_ttl=2s,host=host-b")
    for kind in ("flock", "lockf", "ofd"):
        exclusion(Python(kind), (a, b), 3, 100)
        handoff(Python(kind), a, b)
        death(Python(kind), a, b)
    kinds_exclude_each_other(a, b)
    nothing_left(c)
    session_runs_out(Python("lockf"), c, a, b)


run_case(main)
