"""Samples of what daemons use, over time, and whether that grows."""
import os
import statistics

# Quantity: (name, unit, what growth from the first third to the last is clear: factor and amount).
QUANTITIES = {
    "rss": ("resident", "MiB", 1.25, 4.0),
    "fds": ("descriptors", "", 1.0, 8.0),
    "threads": ("threads", "", 1.0, 1.0),
    "disk": ("disk", "MiB", 1.5, 48.0),
    "p50": ("p50", "ms", 3.0, 5.0),
    "p99": ("p99", "ms", 4.0, 50.0),
}


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
        """The median of a third of the time; the first tenth of it is warming up."""
        skip = len(self.values) // 10
        values = self.values[skip:]
        n = len(values)
        part = values[i * n // 3:(i + 1) * n // 3] or values
        return statistics.median(v for _, v in part)

    def slope_per_hour(self):
        """Least squares over the last two thirds."""
        values = self.values[len(self.values) // 3:]
        if len(values) < 3:
            return 0.0
        mt = statistics.fmean(t for t, _ in values)
        mv = statistics.fmean(v for _, v in values)
        square = sum((t - mt) ** 2 for t, _ in values)
        return 3600 * sum((t - mt) * (v - mv) for t, v in values) / square if square else 0.0

    def grew(self):
        """A sentence when the last third is clearly above the first, and still rising."""
        if len(self.values) < 9:
            return None
        name, unit, factor, amount = QUANTITIES[self.quantity]
        first, middle, last = (self.third(i) for i in range(3))
        if last > first * factor + amount and last > middle:
            return f"{name} grew from {first:.1f} to {last:.1f} {unit}"
        return None

    def text(self):
        return " / ".join(f"{self.third(i):.1f}" for i in range(3)) + f" ({self.slope_per_hour():+.1f})"


def table(series):
    """series: {daemon: {quantity: Series}}.  Returns (lines, what grew)."""
    used = [q for q in QUANTITIES if any(q in s for s in series.values())]
    heads = [QUANTITIES[q][0] + (", " + QUANTITIES[q][1] if QUANTITIES[q][1] else "") for q in used]
    lines = ["| start / middle / end (slope an hour) | " + " | ".join(heads) + " |",
             "|---|" + "--:|" * len(used)]
    wrong = []
    for daemon, of in sorted(series.items()):
        lines.append(f"| {daemon} | " + " | ".join(of[q].text() if q in of else "" for q in used) + " |")
        wrong += [f"{daemon}: {s}" for s in (x.grew() for x in of.values()) if s]
    return lines, wrong
