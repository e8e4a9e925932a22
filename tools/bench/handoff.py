#!/usr/bin/python3
"""How fast a lock changes hands: three nodes and two mounts on this machine, times from one clock.

    tools/bench/handoff.py BUILDDIR [--rounds N] [--dir DIR] [ROW...]

Prints a Markdown table of milliseconds.  Rows (all): killed, released, lease, session, inotify.
DIR is where the nodes keep their data: the disk to be measured (the present directory).  Needs root
(mounts).  Run it on a quiet machine.
"""
import argparse
import ctypes
import errno
import fcntl
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "e2e", "lib"))
import cluster as lib  # noqa: E402
from proxy import Relay  # noqa: E402

LEASE_MS = 300
SESSION_MS = 1000
LOCKS_A_CUT = 10
EX, UN = fcntl.LOCK_EX, fcntl.LOCK_UN
IN_DELETE_SELF = 0x400


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def opened(path):
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)


def child(function, *arguments):
    """A process that runs function(w, ...), which writes to the pipe w.  Returns pid and pipe."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(r)
        try:
            function(w, *arguments)
        finally:
            os._exit(0)
    os.close(w)
    return pid, r


def line(pipe):
    """One line of a child, who writes a line at once."""
    if not select.select([pipe], [], [], 60)[0]:
        raise lib.Failed("a child says nothing")
    return os.read(pipe, 100).decode().strip()


def reap(pid, pipe):
    os.close(pipe)
    os.waitpid(pid, 0)


def hold(w, path):
    fd = opened(path)
    fcntl.flock(fd, EX)
    os.write(w, b"locked\n")
    signal.pause()


def wait(w, path):
    """Wait for the lock; say when it came."""
    fd = opened(path)
    fcntl.flock(fd, EX)
    when = now()
    os.write(w, b"%d\n" % when)


def waiting(mount, name, n=1):
    lib.wait_for("a waiter", 20, lambda: (mount.read(name) or {}).get("waiters") == str(n), pause=0.001)


def killed(bench, a, b):
    took = []
    for i in range(bench.rounds):
        name = f"killed{i}"
        holder, said = child(hold, a.path(name))
        line(said)
        waiter, when = child(wait, b.path(name))
        waiting(b, name)
        began = now()
        os.kill(holder, signal.SIGKILL)
        took.append(int(line(when)) - began)
        reap(holder, said)
        reap(waiter, when)
    bench.row("holder killed with -9 -> next grant on the other mount", took)


def released(bench, a, b):
    took = []
    for i in range(bench.rounds):
        name = f"released{i}"
        fd = opened(a.path(name))
        fcntl.flock(fd, EX)
        waiter, when = child(wait, b.path(name))
        waiting(b, name)
        began = now()
        fcntl.flock(fd, UN)
        took.append(int(line(when)) - began)
        os.close(fd)
        reap(waiter, when)
    bench.row("release (LOCK_UN) -> next grant on the other mount", took)


def lost(fd):
    try:
        os.fsync(fd)
        return False
    except OSError as e:
        if e.errno != errno.ESTALE:
            raise
        return True


def lease(bench, a, b):
    """A lease that nobody renews.  It ends, at the latest, its ttl after open() returned."""
    told, granted, margin = [], [], []
    for i in range(bench.rounds):
        name = f"lease{i}"
        fd = a.acquire(name)
        end = now() + LEASE_MS * 1000000
        waiter, when = child(wait, b.path(name))
        while not lost(fd):
            time.sleep(0.0005)
        stale = now()
        grant = int(line(when))
        told.append(stale - end)
        granted.append(grant - end)
        margin.append(grant - stale)
        os.close(fd)
        reap(waiter, when)
    bench.row(f"end of a lease of {LEASE_MS} ms -> ESTALE at its holder (who gives up early: below 0)", told)
    bench.row("end of a lease -> next grant on the other mount", granted)
    bench.row("ESTALE -> next grant (must not be below 0)", margin)
    bench.early += sum(m < 0 for m in margin)


def grants(w, paths):
    """A thread waits for each of the locks."""
    def one(n, path):
        fd = opened(path)
        fcntl.flock(fd, EX)
        os.write(w, b"%d %d\n" % (n, now()))

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(paths)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def told_when(fds):
    """When each of the descriptors said ESTALE."""
    told = {}
    while len(told) < len(fds):
        for n, fd in enumerate(fds):
            if n not in told and lost(fd):
                told[n] = now()
        time.sleep(0.0005)
    return told


def session(bench, a, b):
    """A mount that is cut off its cluster, with flocks that the other mount waits for."""
    cut_told, margin = [], []
    for i in range(-(-bench.rounds // LOCKS_A_CUT)):
        names = [f"session{i}.{n}" for n in range(LOCKS_A_CUT)]
        fds = [opened(a.path(name)) for name in names]
        for fd in fds:
            fcntl.flock(fd, EX)
        waiter, said = child(grants, [b.path(name) for name in names])
        for name in names:
            waiting(b, name)
        time.sleep(0.01 * (i % 30))  # The keepalive comes when it comes.
        began = now()
        bench.relay.cut("cut-off")
        told = told_when(fds)
        text = b""
        while text.count(b"\n") < LOCKS_A_CUT:
            text += os.read(said, 4096)
        when = {int(n): int(t) for n, t in (x.split() for x in text.decode().splitlines())}
        cut_told += [t - began for t in told.values()]
        margin += [when[n] - told[n] for n in told]
        reap(waiter, said)
        for fd in fds:
            os.close(fd)
        bench.relay.heal("cut-off")
        fd = opened(a.path("again"))
        fcntl.flock(fd, EX)  # On a new session, when there is one.
        os.close(fd)
    bench.row(f"mount cut off (session_ttl {SESSION_MS} ms) -> ESTALE at its holders", cut_told)
    bench.row("ESTALE -> next grant on the other mount (must not be below 0)", margin)
    bench.early += sum(m < 0 for m in margin)


def inotify(bench, a, b):
    """One watches the lock's file on the other mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_CLOEXEC)
    took, missed = [], 0
    for i in range(bench.rounds):
        name = f"inotify{i}"
        fd = opened(a.path(name))
        fcntl.flock(fd, EX)
        if libc.inotify_add_watch(watch, b.path(name).encode(), IN_DELETE_SELF) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        began = now()
        fcntl.flock(fd, UN)
        if select.select([watch], [], [], 2)[0]:
            took.append(now() - began)
            os.read(watch, 4096)
        else:
            missed += 1
        os.close(fd)
        if missed == 3 and not took:
            break
    os.close(watch)
    if took:
        bench.row("release -> inotify DELETE_SELF on the other mount", took)
    if missed:
        print(f"# {missed} releases were not told by inotify", flush=True)


ROWS = {f.__name__: f for f in (killed, released, lease, inotify, session)}


class Bench:
    def __init__(self, t, rounds):
        self.test = t
        self.rounds = rounds
        self.early = 0
        self.relay = None

    def mounts(self, behind_relay):
        """A new cluster with two mounts."""
        c = self.test.cluster(3)
        name = "behind" if behind_relay else "plain"
        for node in c.nodes.values():
            node.data += "-" + name
            if not behind_relay:
                node.start()
                continue
            self.relay = self.relay or Relay(["cut-off", "well-off"])
            behind = self.test.free_port("127.0.0.1")
            self.relay.listen(node.client_port, behind)
            node.start(options=("--listen", f"{node.raft_address},127.0.0.1:{behind}"))
        c.wait_leader()
        a = f"host=cut-off,timeout=20s,ttl={LEASE_MS}ms,session_ttl={SESSION_MS}ms"
        return c, c.mount("a-" + name, options=a), c.mount("b-" + name, options="host=well-off,timeout=20s,ttl=30s")

    def run(self, rows, behind_relay):
        c, a, b = self.mounts(behind_relay)
        for row in rows:
            row(self, a, b)
        for m in (a, b):
            m.unmount()
        for node in c.nodes.values():
            node.process.end()

    @staticmethod
    def row(what, values):
        values = sorted(v / 1e6 for v in values)
        p99 = values[max(0, -(-len(values) * 99 // 100) - 1)]
        print(f"| {what} | {len(values)} | {values[0]:.1f} | {values[len(values) // 2]:.1f} | {p99:.1f} | {values[-1]:.1f} |",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--dir", default=".")
    options = parser.parse_args()
    for name in options.rows:
        if name not in ROWS:
            parser.error(f"no row '{name}' ({', '.join(ROWS)})")
    directory = tempfile.mkdtemp(prefix="holdfast-handoff-", dir=os.path.abspath(options.dir))
    t = lib.Test(options.build, directory, [])
    status = 1
    try:
        bench = Bench(t, options.rounds)
        print("| what | n | best | median | p99 | worst |\n|---|--:|--:|--:|--:|--:|")
        wanted = options.rows or ROWS
        for behind_relay in (False, True):  # A relay costs time: only where a mount is cut off.
            rows = [ROWS[name] for name in wanted if (name == "session") == behind_relay]
            if rows:
                bench.run(rows, behind_relay)
        if bench.early:
            print(f"# {bench.early} GRANTS BEFORE THE HOLDER WAS TOLD")
        status = 1 if bench.early else 0
    finally:
        for sentence in t.finish():
            print(f"# {sentence}")
            status = 1
        if not lib.mounts_below(directory):
            shutil.rmtree(directory, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
