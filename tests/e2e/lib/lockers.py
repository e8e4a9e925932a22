"""What a program that locks must see on two mounts of one cluster, whatever it locks with.

A Locker names three commands (argument lists):

    loop(path, count, n)   n times: lock, add one to the number in the file `count`, unlock
    hold(path)             lock (wait for it), print "locked", unlock when a line comes on stdin
    attempt(path)          lock without waiting, unlock: exit status 0, or `refused` if it is held

The checks run them as real processes on both mounts.
"""
import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time

from cluster import Failed, boot_ns, check, equal, expect_errno, wait_for

PATIENCE_S = 60  # For what comes in milliseconds, on a machine that does other things too.


class Locker:
    name = ""
    refused = 1  # Exit status of attempt() when somebody holds the lock.

    def loop(self, path, count, n):
        raise NotImplementedError

    def hold(self, path):
        raise NotImplementedError

    def attempt(self, path):
        raise NotImplementedError


class Holder:
    """A process that has, or waits for, the lock, in a process group of its own."""

    def __init__(self, argv):
        self.started_ns = boot_ns()
        self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      start_new_session=True)
        self.pid = self.popen.pid
        os.set_blocking(self.popen.stdout.fileno(), False)
        self.said = b""
        self.locked_ns = None

    def has(self):
        """Does it have the lock?"""
        if self.locked_ns is None:
            try:
                self.said += os.read(self.popen.stdout.fileno(), 100)
            except BlockingIOError:
                return False
            if b"locked\n" in self.said:
                self.locked_ns = boot_ns()
            elif self.popen.poll() is not None:
                raise Failed(f"{self.popen.args} ended with {self.popen.returncode}, having said {self.said!r}")
        return self.locked_ns is not None

    def wait(self, what):
        wait_for(what, PATIENCE_S, self.has, pause=0.002)
        return self

    def release(self):
        self.popen.stdin.write("\n")
        self.popen.stdin.close()
        equal(self.popen.wait(PATIENCE_S), 0, f"exit status of {self.popen.args}")
        self.popen.stdout.close()

    def kill(self):
        """kill -9, of it and what it started; returns the instant before."""
        now = boot_ns()
        os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE_S)
        self.popen.stdin.close()
        self.popen.stdout.close()
        return now


def exit_status(argv):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE_S).returncode


def is_refused(locker, mount, path):
    status = exit_status(locker.attempt(mount.path(path)))
    check(status in (0, locker.refused), f"{locker.name}: attempt ended with {status}")
    return status != 0


def exclusion(locker, mounts, contenders, n):
    """Contenders on all mounts add to a number on a tmpfs; none may be lost."""
    directory = tempfile.mkdtemp(prefix="holdfast-", dir="/dev/shm")
    try:
        count = os.path.join(directory, "count")
        with open(count, "w") as f:
            f.write("0\n")
        loops = [subprocess.Popen(locker.loop(m.path(locker.name + "-count"), count, n), stdin=subprocess.DEVNULL)
                 for _ in range(contenders) for m in mounts]
        for p in loops:
            equal(p.wait(PATIENCE_S), 0, f"{locker.name}: a contender's exit status")
        with open(count) as f:
            equal(int(f.read()), n * len(loops), f"{locker.name}: sum under the lock")
    finally:
        shutil.rmtree(directory)


def waits(locker, waiter, seconds=0.3):
    """The lock is held: a waiter does not get it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check(not waiter.has(), f"{locker.name}: a second holder")
        time.sleep(0.01)


def handoff(locker, a, b):
    """Held, refused to and waited for by the others, handed over; within one mount and across two."""
    for n, (first, second) in enumerate([(a, b), (b, a), (a, a)]):
        path = f"{locker.name}-hand{n}"
        holder = Holder(locker.hold(first.path(path))).wait(f"{locker.name}: the first holder")
        check(is_refused(locker, second, path), f"{locker.name}: a second holder by attempt")
        waiter = Holder(locker.hold(second.path(path)))
        waits(locker, waiter)
        holder.release()
        waiter.wait(f"{locker.name}: the waiter after a release")
        check(is_refused(locker, first, path), f"{locker.name}: a second holder after the hand-over")
        waiter.release()
        check(not is_refused(locker, first, path), f"{locker.name}: refused a free lock")


def death(locker, a, b):
    """kill -9 of the holder frees the lock for a waiter, on the other mount and on its own."""
    for n, (first, second) in enumerate([(a, b), (a, a)]):
        path = f"{locker.name}-death{n}"
        holder = Holder(locker.hold(first.path(path))).wait(f"{locker.name}: the holder")
        waiter = Holder(locker.hold(second.path(path)))
        waits(locker, waiter, 0.1)
        killed_ns = holder.kill()
        waiter.wait(f"{locker.name}: the waiter after kill -9 of the holder")
        print(f"{locker.name}: kill -9 -> next holder: {(waiter.locked_ns - killed_ns) / 1e6:.1f} ms")
        waiter.release()
        # A waiter that dies leaves no place in the queue behind (after a moment: fs/locking.h).
        holder = Holder(locker.hold(first.path(path))).wait(f"{locker.name}: the holder")
        waiter = Holder(locker.hold(second.path(path)))
        waits(locker, waiter, 0.1)
        waiter.kill()
        holder.release()
        wait_for(f"{locker.name}: what a dead waiter left to be gone", PATIENCE_S,
                 lambda: not is_refused(locker, second, path))


def lease_runs_out(locker, short, b, ttl_s, remove):
    """A lease outlives its holder until its end, never less; then the next one has it, and what the
    old holder's kind does to let go (`remove`) can't take it away.

    short: a mount whose leases have this ttl."""
    path = f"{locker.name}-lease"
    holder = Holder(locker.hold(short.path(path))).wait(f"{locker.name}: the holder")
    waiter = Holder(locker.hold(b.path(path)))
    waits(locker, waiter, 0.1)
    holder.kill()
    refused = is_refused(locker, b, path)
    check(refused or boot_ns() - holder.started_ns > ttl_s * 1e9, f"{locker.name}: a killed holder's lease did not stay")
    waiter.wait(f"{locker.name}: the waiter after the lease's end")
    took_s = (waiter.locked_ns - holder.started_ns) / 1e9
    print(f"{locker.name}: lease of {ttl_s} s, holder killed, next holder after {took_s:.2f} s")
    check(took_s >= ttl_s, f"{locker.name}: granted {took_s} s after a lease of {ttl_s} s began")
    check(is_refused(locker, short, path), f"{locker.name}: the next holder is not alone")
    expect_errno(errno.EPERM, lambda: remove(short, path), f"{locker.name}: taking the next holder's lock away")
    waiter.release()
    check(not is_refused(locker, short, path), f"{locker.name}: refused a free lock")


def session_runs_out(locker, cluster, a, b):
    """kill -9 of a mount's daemon with a holder behind it: its session runs out, the next one has the
    lock.  The mount works again when it was mounted again.  What a lock left behind can be is this."""
    path = f"{locker.name}-session"
    holder = Holder(locker.hold(a.path(path))).wait(f"{locker.name}: the holder")
    waiter = Holder(locker.hold(b.path(path)))
    waits(locker, waiter, 0.1)
    a.kill()
    waits(locker, waiter, 0.1)
    waiter.wait(f"{locker.name}: the waiter after its mount's death")
    waiter.release()
    holder.kill()
    subprocess.run(["umount", "-l", a.dir], check=True, timeout=PATIENCE_S)
    a.start()
    check(not is_refused(locker, a, path), f"{locker.name}: refused on the mount that was made anew")
    cluster.wait_leader()


def nothing_left(cluster):
    def none():
        text = cluster.cli("status").stdout
        return "locks: 0 (0 holds" in text and ", 0 waiters)" in text

    wait_for("every lock and waiter to be gone", 30, none)
