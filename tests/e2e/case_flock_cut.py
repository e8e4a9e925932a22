#!/usr/bin/python3
"""A mount that is cut off its cluster tells its holders before another mount is granted."""
# seconds: 40
import fcntl
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from proxy import Relay  # noqa: E402

EX, NB, UN = fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN

# Says when it was told: by ESTALE, or by a signal.  One clock for all: CLOCK_BOOTTIME.
HOLDER = r"""
import errno, fcntl, os, signal, sys, time
def now(): return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
def told(*_):
    print("signal", now(), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
for kind in sys.argv[2].split("+"):
    (fcntl.flock if kind == "flock" else fcntl.lockf)(fd, fcntl.LOCK_EX)
print("locked", flush=True)
if sys.argv[3] == "sleep":
    while True:
        time.sleep(0.01)
while True:
    try:
        os.fsync(fd)
    except OSError as e:
        print(errno.errorcode[e.errno], now(), flush=True)
        break
    time.sleep(0.001)
for call in (lambda: os.read(fd, 1), lambda: os.write(fd, b"x"), lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)):
    try:
        call()
        print("works", flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
sys.stdin.read()
"""

WAITER = r"""
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print(time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True)
"""


def start(script, *arguments):
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True)


def state(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0]


class Bench:
    def __init__(self, t):
        self.relay = Relay(["cut-off", "well-off"])
        self.cluster = t.cluster(3)
        for node in self.cluster.nodes.values():
            behind = t.free_port("127.0.0.1")
            self.relay.listen(node.client_port, behind)
            node.start(options=("--listen", f"{node.raft_address},127.0.0.1:{behind}"))
        self.cluster.wait_leader()
        self.n = 0

    def mount(self, name, host, extra=""):
        return self.cluster.mount(name, options=f"ttl=5s,timeout=20s,session_ttl=1s,host={host}{extra}")

    def round(self, a, b, kind, how):
        """Cut; the margin between the telling of the holder and the other's grant, in ms."""
        self.n += 1
        name = f"cut{self.n}"
        holder = start(HOLDER, a.path(name), kind, how)
        equal(holder.stdout.readline(), "locked\n", "the holder")
        waiter = start(WAITER, b.path(name))
        wait_for("a waiter", 5, lambda: (b.read(name) or {}).get("waiters") == "1")
        time.sleep(0.05 * (self.n % 7))
        self.relay.cut("cut-off")
        granted = int(waiter.stdout.readline())
        return name, holder, waiter, granted


def told_first(bench, a, b):
    margins = []
    for kind, how in (("flock", "poll"), ("lockf", "poll"), ("flock+lockf", "poll")):
        name, holder, waiter, granted = bench.round(a, b, kind, how)
        what, when = holder.stdout.readline().split()
        equal(what, "ESTALE", "what the holder was told")
        margins.append((granted - int(when)) / 1e6)
        for call in ("read", "write", "flock"):
            equal(holder.stdout.readline(), "ESTALE\n", call + " of a lost handle")
        waiter.wait(5)
        bench.relay.heal("cut-off")
        # A new session is opened by itself, and all goes on.
        equal(subprocess.run(["flock", "-w", "15", a.path(name), "true"], check=False, timeout=20).returncode, 0,
              "flock after the cluster came back")
        holder.stdin.close()
        holder.wait(5)
        wait_for("no lock to be left", 5, lambda: not os.listdir(b.dir))
    print("ESTALE -> the other's grant: %s ms" % ", ".join("%.0f" % m for m in margins))
    check(min(margins) > 0, f"granted before the holder was told: {margins}")


def signalled(bench, b):
    a = bench.mount("term", "cut-off", ",lost=TERM")
    _, holder, waiter, granted = bench.round(a, b, "flock", "sleep")
    what, when = holder.stdout.readline().split()
    equal(what, "signal", "what the holder was told")
    print("SIGTERM -> the other's grant: %.0f ms" % ((granted - int(when)) / 1e6))
    check(granted > int(when), "granted before the holder was told")
    holder.wait(5)
    waiter.wait(5)
    bench.relay.heal("cut-off")
    equal(a.unmount(), 0, "exit status of the mount")


def frozen(bench, b):
    a = bench.mount("freeze", "cut-off", ",lost=freeze")
    # Somebody wants the lock: the holder is stopped first, and killed when all is known.
    name, holder, waiter, granted = bench.round(a, b, "flock", "sleep")
    equal(state(holder.pid), "T", "state of the holder when the other was granted")
    bench.relay.heal("cut-off")
    equal(holder.wait(10), -signal.SIGKILL, "end of the frozen holder")
    check(granted > 0 and waiter.wait(5) == 0, "the waiter")
    # Nobody wants it: the holder goes on with its lock.
    holder = start(HOLDER, a.path(name), "flock", "sleep")
    equal(holder.stdout.readline(), "locked\n", "the holder")
    bench.relay.cut("cut-off")
    wait_for("the holder to be stopped", 5, lambda: state(holder.pid) == "T")
    time.sleep(1.5)
    bench.relay.heal("cut-off")
    wait_for("the holder to go on", 15, lambda: state(holder.pid) != "T")
    time.sleep(0.3)
    fd = os.open(b.path(name), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(fd, EX | NB)
        check(False, "the lock of a resumed session was granted to another")
    except BlockingIOError:
        pass
    holder.kill()
    fcntl.flock(fd, EX)
    os.close(fd)
    holder.wait(5)
    equal(a.unmount(), 0, "exit status of the mount")


def resumed(bench, a, b):
    """Who did not notice that the session was in doubt, and nobody wanted the lock: nothing happened."""
    fd = os.open(a.path("kept"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, EX)
    fcntl.lockf(fd, EX)
    fcntl.flock(fd, UN)  # Kept for the other lock.
    bench.relay.cut("cut-off")
    time.sleep(2.0)
    bench.relay.heal("cut-off")
    wait_for("the mount to work", 15, lambda: subprocess.run(["flock", "-w", "10", a.path("other"), "true"], check=False,
                                                             timeout=20).returncode == 0)
    os.fsync(fd)
    other = os.open(b.path("kept"), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(other, EX | NB)
        check(False, "a kept lock was granted to another")
    except BlockingIOError:
        pass
    os.close(fd)
    fcntl.flock(other, EX)
    os.close(other)


def broken(bench, a, b, kind):
    """An operator's break is a loss."""
    fd = os.open(a.path("broken"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, EX)
    if kind == "lockf":
        fcntl.lockf(fd, EX)
        fcntl.flock(fd, UN)
    bench.cluster.cli("break", "broken", "--token", b.read("broken")["token"])

    def lost():
        try:
            os.fsync(fd)
            return False
        except OSError:
            return True

    wait_for("ESTALE", 5, lost)
    os.close(fd)


def main(t):
    t.need_root()
    t.need_fuse()
    bench = Bench(t)
    b = bench.mount("b", "well-off")
    a = bench.mount("a", "cut-off")
    told_first(bench, a, b)
    resumed(bench, a, b)
    for kind in ("flock", "lockf"):
        broken(bench, a, b, kind)
    equal(a.unmount(), 0, "exit status of the mount")
    signalled(bench, b)
    frozen(bench, b)


run_case(main)
