#!/usr/bin/python3
"""util-linux flock on two mounts: `flock PATH COMMAND`, and on a descriptor of the shell."""
# seconds: 25
# sanitized: no
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from lockers import (PATIENCE_S, Holder, Locker, death, exclusion, handoff, is_refused,  # noqa: E402
                     nothing_left, session_runs_out)

ADD = 'read -r n <"$C"; echo $((n + 1)) >"$C"'


class Command(Locker):
    """flock PATH COMMAND"""
    name = "flock-command"
    refused = 75

    def loop(self, path, count, n):
        return ["env", f"C={count}", "sh", "-c", f"i=0; while [ $i -lt {n} ]; do"
                f" flock {path} sh -c '{ADD}' || exit; i=$((i + 1)); done"]

    def hold(self, path):
        return ["flock", path, "sh", "-c", "echo locked; read -r line; true"]

    def attempt(self, path):
        return ["flock", "-n", "-E", str(self.refused), path, "true"]


class Descriptor(Locker):
    """flock FD, in a script"""
    name = "flock-fd"
    refused = 76

    def loop(self, path, count, n):
        return ["env", f"C={count}", "sh", "-c", f"exec 9>{path}; i=0; while [ $i -lt {n} ]; do"
                f" flock 9 || exit; {ADD}; flock -u 9 || exit; i=$((i + 1)); done"]

    def hold(self, path):
        return ["sh", "-c", f"exec 9>{path}; flock 9 && echo locked && read -r line; true"]

    def attempt(self, path):
        return ["sh", "-c", f"exec 9>{path}; flock -n -E {self.refused} 9"]


def shared(a, b):
    """Two readers at once; no writer."""
    readers = [Holder(["flock", "-s", m.path("shared"), "sh", "-c", "echo locked; read -r line; true"]).wait("a reader")
               for m in (a, b)]
    check(is_refused(Command(), b, "shared"), "a writer beside readers")
    for r in readers:
        r.release()
    check(not is_refused(Command(), a, "shared"), "refused after the readers left")


def timeout(a, b):
    """flock -w gives up (an alarm interrupts its wait) and leaves no waiter behind."""
    holder = Holder(Command().hold(a.path("w"))).wait("the holder")
    equal(subprocess.run(["flock", "-w", "0.5", "-E", "9", b.path("w"), "true"], check=False,
                         timeout=PATIENCE_S).returncode, 9, "exit status of flock -w")
    equal(b.read("w")["waiters"], "0", "waiters after flock -w gave up")
    waiter = Holder(["flock", "-w", "50", b.path("w"), "sh", "-c", "echo locked; read -r line; true"])
    wait_for("it to wait", PATIENCE_S, lambda: b.read("w")["waiters"] == "1")
    holder.release()
    waiter.wait("flock -w after a release").release()


def inheritance(a, b):
    """The lock is the open file's: a child that has the descriptor keeps it; with -o it has none."""
    for option, kept in (([], True), (["-o"], False)):
        holder = Holder(["flock", *option, a.path("o"), "sh", "-c", "echo locked; read -r line; true"]).wait("the holder")
        os.kill(holder.pid, signal.SIGKILL)  # flock alone; the shell lives on.
        holder.popen.wait(PATIENCE_S)
        if kept:
            check(is_refused(Command(), b, "o"), "granted while the child has the descriptor")
        else:
            wait_for("flock -o to let go", PATIENCE_S, lambda: not is_refused(Command(), b, "o"))
        os.killpg(holder.pid, signal.SIGKILL)
        wait_for("the lock to be free", PATIENCE_S, lambda: not is_refused(Command(), b, "o"))


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options="timeout=20s,session_ttl=2s,host=host-a")
    b = c.mount("b", options="timeout=20s,session_ttl=2s,host=host-b")
    for locker in (Command(), Descriptor()):
        exclusion(locker, (a, b), 3, 40)
        handoff(locker, a, b)
        death(locker, a, b)
    shared(a, b)
    timeout(a, b)
    inheritance(a, b)
    nothing_left(c)
    session_runs_out(Command(), c, a, b)


run_case(main)
