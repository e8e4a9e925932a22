#!/usr/bin/python3
"""liblockfile's dotlockfile and lockfile-progs on two mounts: open(O_EXCL) of a file of one's own, link
it to the lock, see by inode numbers whether that worked, unlink."""
# seconds: 35
# sanitized: no
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from lockers import (PATIENCE_S, Holder, Locker, exclusion, exit_status, handoff, is_refused,  # noqa: E402
                     lease_runs_out, nothing_left)

TTL_S = 3  # Of leases on the mount `short`.
# What a try may end with when somebody has the lock: 4, or 8 when the lock was let go of between link
# and stat.  The library takes that for a stale lock and unlinks it; by then it is the next holder's,
# who would lose it on a local disk.  Here the unlink is refused, and the library gives up, leaving
# its own file to the end of its lease.
TAKEN = "4 | 8"
ADD = 'read -r n <"$C"; echo $((n + 1)) >"$C"'


class Dotlockfile(Locker):
    """dotlockfile -l LOCK COMMAND: its process acquires, runs the command, releases."""
    name = "dotlockfile"
    refused = 4  # "Could not acquire after all retries."

    def loop(self, path, count, n):
        # It sleeps whole seconds between its tries: the loop asks again instead.
        return ["env", f"C={count}", "sh", "-c", f"i=0; while [ $i -lt {n} ]; do"
                f" dotlockfile -l -r 0 {path}.lock sh -c '{ADD}'; e=$?; case $e in"
                f" 0) i=$((i + 1));; {TAKEN}) sleep 0.01;; *) exit $e;; esac; done"]

    def hold(self, path):
        return ["dotlockfile", "-l", "-r", "60", "-i", "1", path + ".lock", "sh", "-c", "echo locked; read -r line; true"]

    def attempt(self, path):
        return ["dotlockfile", "-l", "-r", "0", path + ".lock", "true"]


class Script(Locker):
    """dotlockfile -l, -u in a script: the process that acquires ends, and the script is its heir."""
    name = "dotlockfile-script"
    refused = 4
    lock, unlock = "dotlockfile -l -r 60 -i 1 -p {}.lock", "dotlockfile -u {}.lock"
    try_lock = "dotlockfile -l -r 0 -p {}.lock"

    def loop(self, path, count, n):
        lock, unlock = self.try_lock.format(path), self.unlock.format(path)
        return ["env", f"C={count}", "sh", "-c", f"i=0; while [ $i -lt {n} ]; do {lock}; e=$?; case $e in"
                f" 0) i=$((i + 1)); {ADD}; {unlock} || exit 99;; {TAKEN}) sleep 0.01;; *) exit $e;; esac; done"]

    def hold(self, path):
        return ["sh", "-c", f"{self.lock.format(path)} && echo locked && read -r line; {self.unlock.format(path)}"]

    def attempt(self, path):
        return ["sh", "-c", f"{self.try_lock.format(path)} && {self.unlock.format(path)}"]


class Progs(Script):
    """lockfile-create, lockfile-remove.  It sleeps 5 s between its tries: a loop asks again instead."""
    name = "lockfile-progs"
    lock, unlock = "until lockfile-create -q --retry 0 {}; do sleep 0.05; done", "lockfile-remove {}"
    try_lock = "lockfile-create -q --retry 0 {}"


def remove(mount, path):
    os.unlink(mount.path(path + ".lock"))


def tools(a, b):
    """-c, -t, lockfile-check and lockfile-touch."""
    for check_it, touch, here in ((["dotlockfile", "-c"], ["dotlockfile", "-t"], "tools.lock"),
                                  (["lockfile-check"], ["lockfile-touch", "--oneshot"], "tools")):
        equal(exit_status([*check_it, b.path(here)]) != 0, True, f"{check_it} of no lock")
        holder = Holder(Script().hold(a.path("tools"))).wait("the holder")
        for m in (a, b):
            equal(exit_status([*check_it, m.path(here)]), 0, f"{check_it} of a lock")
        equal(exit_status([*touch, b.path(here)]) != 0, True, f"{touch} of another host's lock")
        equal(exit_status(["dotlockfile", "-u", b.path("tools.lock")]), 1, "dotlockfile -u of another host's lock")
        holder.release()


def inherited(a, b):
    """The nearest living ancestor of a killed holder, and what it starts, may take its lock away."""
    Holder(Script().hold(a.path("heir"))).wait("the holder").kill()
    equal(exit_status(["dotlockfile", "-u", b.path("heir.lock")]), 1, "dotlockfile -u on another host")
    equal(exit_status(["dotlockfile", "-u", a.path("heir.lock")]), 0, "dotlockfile -u by the heir's child")
    check(not is_refused(Script(), b, "heir"), "refused a lock that the heir took away")


def touched(short, b):
    """A script that touches its lock keeps it past its ttl; once it dies, the lease runs out."""
    script = ("lockfile-create -q {0} && echo locked;"
              " while lockfile-touch --oneshot {0}; do sleep 0.3; done").format(short.path("touched"))
    holder = Holder(["sh", "-c", script]).wait("the script")
    end = time.monotonic() + 2.2 * TTL_S
    while time.monotonic() < end:
        check(is_refused(Progs(), b, "touched"), "the lease was not renewed")
        time.sleep(0.2)
    killed_ns = holder.kill()
    waiter = Holder(["sh", "-c", "lockfile-create -q --retry 60 {0} && echo locked && read -r line;"
                     " lockfile-remove {0}".format(b.path("touched"))]).wait("the next holder")
    print(f"lockfile-touch: script killed, next holder after {(waiter.locked_ns - killed_ns) / 1e9:.2f} s")
    waiter.release()


def interrupted(a, b):
    """A waiting dotlockfile that is told to end takes its own file away."""
    def own_files():
        return {n for n in os.listdir(b.dir) if n.startswith(".lk")} - before

    holder = Holder(Dotlockfile().hold(a.path("int"))).wait("the holder")
    before = set()
    before = own_files()  # What was left behind (see TAKEN).
    waiter = Holder(Dotlockfile().hold(b.path("int")))
    wait_for("it to wait", PATIENCE_S, own_files)
    os.killpg(waiter.pid, signal.SIGTERM)
    waiter.popen.wait(PATIENCE_S)
    equal(own_files(), set(), "what it left behind")
    holder.release()


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options="ttl=20s,timeout=20s,host=host-a")
    b = c.mount("b", options="ttl=20s,timeout=20s,host=host-b")
    short = c.mount("short", options=f"ttl={TTL_S}s,timeout=20s,host=host-short")
    for locker in (Dotlockfile(), Script(), Progs()):
        exclusion(locker, (a, b), 2, 15)
        handoff(locker, a, b)
        lease_runs_out(locker, short, b, TTL_S, remove)
    tools(a, b)
    inherited(a, b)
    touched(short, b)
    interrupted(a, b)
    nothing_left(c)


run_case(main)
