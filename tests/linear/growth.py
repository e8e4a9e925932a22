"""Samples of what daemons use, over time, and whether that grows."""
import os
import statistics
import time

# Quantity: (name, unit, what growth from the first third to the last is clear: factor and amount, which
# part of the samples lies below the one that is judged).  Descriptors are judged by what is open at all
# times, since connections come and go.  Threads: libuv starts its pool of four when it is first used.
QUANTITIES = {
    "rss": ("resident", "MiB", 1.25, 40.0, 0.5),
    "kept": ("of it log and events", "MiB", 1.0, 80.0, 0.5),
    "other": ("resident without their peak", "MiB", 1.15, 2.0, 0.5),
    "fds": ("descriptors", "", 1.0, 6.0, 0.1),
    "threads": ("threads", "", 1.0, 4.0, 0.1),
    "disk": ("disk", "MiB", 1.5, 48.0, 0.5),
    "p50": ("p50", "ms", 3.0, 5.0, 0.5),
    "p99": ("p99", "ms", 4.0, 50.0, 0.5),
}
MACHINE = "a durable write of this machine"
BY_SPEED = ("p50", "p99")  # May grow as much as the machine itself gets slower.


def of_machine(path):
    """Milliseconds that this machine takes now for a little work and a small durable write: what
    latencies are compared with."""
    began = time.monotonic_ns()
    sum(range(20000))
    with open(path, "wb") as f:
        f.write(bytes(4096))
        f.flush()
        os.fdatasync(f.fileno())
    return (time.monotonic_ns() - began) / 1e6


def of_process(pid):
    """What a process uses now; None when it is gone.  Not counted are pidfds, with which a mount
    remembers up to 256 processes (fs/process.c)."""
    try:
        directory = f"/proc/{pid}/fd/"
        links = []
        for name in os.listdir(directory):
            try:
                links.append(os.readlink(directory + name))
            except OSError:
                pass  # Closed meanwhile.
        with open(f"/proc/{pid}/status") as f:
            status = dict(line.split(":", 1) for line in f)
        return {"rss": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"]),
                "fds": sum(link != "anon_inode:[pidfd]" for link in links)}
    except (OSError, KeyError):
        return None


def of_directory(directory):
    """MiB on disk."""
    total = 0
    for path, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.stat(os.path.join(path, name)).st_blocks * 512
            except OSError:
                pass
    return total / (1 << 20)


class Series:
    """Values of one quantity of one daemon: (seconds, value)."""

    def __init__(self, quantity):
        self.quantity = quantity
        self.values = []

    def add(self, at, value):
        self.values.append((at, value))

    def third(self, i):
        """What is judged of a third of the time; the first tenth of it is warming up."""
        skip = len(self.values) // 10
        values = self.values[skip:]
        n = len(values)
        part = sorted(v for _, v in values[i * n // 3:(i + 1) * n // 3] or values)
        share = QUANTITIES[self.quantity][4]
        return statistics.median(part) if share == 0.5 else part[int(len(part) * share)]

    def slope_per_hour(self):
        """Least squares over the last two thirds."""
        values = self.values[len(self.values) // 3:]
        if len(values) < 3:
            return 0.0
        mt = statistics.fmean(t for t, _ in values)
        mv = statistics.fmean(v for _, v in values)
        square = sum((t - mt) ** 2 for t, _ in values)
        return 3600 * sum((t - mt) * (v - mv) for t, v in values) / square if square else 0.0

    def grew(self, slower=1.0):
        """A sentence when the last third is clearly above the first, and still rising.

        slower: how much slower the machine was in the last third."""
        if len(self.values) < 9:
            return None
        name, unit, factor, amount, _ = QUANTITIES[self.quantity]
        first, middle, last = (self.third(i) for i in range(3))
        if self.quantity in BY_SPEED:
            factor *= max(1.0, slower)
        if last > first * factor + amount and last > middle:
            return f"{name} grew from {first:.1f} to {last:.1f} {unit}"
        return None

    def text(self):
        return " / ".join(f"{self.third(i):.1f}" for i in range(3)) + f" ({self.slope_per_hour():+.1f})"


class Kept:
    """The log and the events that a node keeps in memory are windows with bounds of their own (HACKING,
    "Under load"), as large as the load of the last minutes makes them.  What they needed once is
    memory of the process for good: only what it has beyond their peak can be a leak."""

    def __init__(self):
        self.now = self.peak = 0.0

    def saw(self, metrics):
        """metrics: of a node's Status.  Returns the MiB that it keeps."""
        self.now = (metrics["log_bytes"] + metrics["events_ring_bytes"]) / (1 << 20)
        self.peak = max(self.peak, self.now)
        return self.now

    def beyond(self, rss):
        return rss - self.peak


def table(series):
    """series: {daemon: {quantity: Series}}.  Returns (lines, what grew)."""
    used = [q for q in QUANTITIES if any(q in s for s in series.values())]
    heads = [QUANTITIES[q][0] + (", " + QUANTITIES[q][1] if QUANTITIES[q][1] else "") for q in used]
    lines = ["| start / middle / end (slope an hour) | " + " | ".join(heads) + " |",
             "|---|" + "--:|" * len(used)]
    wrong = []
    machine = series.get(MACHINE, {}).get("p50")
    slower = machine.third(2) / machine.third(0) if machine and machine.third(0) else 1.0
    for daemon, of in sorted(series.items()):
        lines.append(f"| {daemon} | " + " | ".join(of[q].text() if q in of else "" for q in used) + " |")
        if daemon != MACHINE:
            wrong += [f"{daemon}: {s}" for s in (x.grew(slower) for x in of.values()) if s]
    return lines, wrong
