"""Audit files of nodes and gateways, read strictly, and what must hold of them."""
import collections
import os
import time

import fields
from cluster import check, equal, wait_for

NODES = ("1", "2", "3")


class Audit:
    """The files of nodes and gateways, read strictly."""

    def __init__(self, t):
        self.directory = t.directory

    def path(self, name):
        return os.path.join(self.directory, f"audit-{name}.log")

    def lines(self, *names):
        found = []
        for name in names:
            for file in (self.path(name) + ".1", self.path(name)):
                if not os.path.exists(file):
                    continue
                with open(file, "rb") as f:
                    data = f.read()
                for line in data[:data.rfind(b"\n") + 1].splitlines():
                    if line:
                        found.append(fields.fields(line))
        return found

    def nodes(self):
        return self.lines("1", "2", "3")

    def one(self, names, **having):
        """The line that has these fields; there must be exactly one."""
        wanted = {k: v if isinstance(v, bytes) else str(v).encode() for k, v in having.items()}

        def found():
            return [a for a in self.lines(*names) if wanted.items() <= a.items()]
        wait_for(f"an audit line with {having}", 20, found)
        equal(len(found()), 1, f"lines with {having}: {found()}")
        return found()[0]


def last_token(c):
    """How many tokens were given out: one for each grant."""
    return wait_for("a status", 20, c.wait_leader().status)["last_token"]


def told_once(c, audit, what, seconds=60):
    """Each token of the cluster has one line, and nothing is told that was not granted."""
    def counts():
        return collections.Counter(int(a["token"]) for a in audit.nodes()
                                   if a["event"] == b"grant" and "converted" not in a)

    def converted():
        return {int(a["token"]) for a in audit.nodes() if "converted" in a}
    wait_for(f"{what}: all grants to be told", seconds, lambda: len(set(counts()) | converted()) >= last_token(c))
    time.sleep(0.2)  # What comes too often would come now.
    got, n = counts(), last_token(c)
    equal(sorted(set(got) | converted()), list(range(1, n + 1)), f"{what}: tokens with a line")
    equal([token for token, k in got.items() if k != 1], [], f"{what}: told more than once")
    positions = collections.Counter((a["index"], a["n"]) for a in audit.nodes() if a["event"] == b"grant")
    check(max([1, *positions.values()]) == 1, f"{what}: a position twice")
    return got
