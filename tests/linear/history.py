"""Histories: what clients asked of locks and were told, and when; the format and its reader.

A history is a directory of files `*.hist`, written by many processes.  Each line is an event, with
the CLOCK_MONOTONIC of the one machine in nanoseconds first; lines of one client are in order:

    NS i CLIENT N KIND LOCK key=value...    client CLIENT invokes its operation N
    NS r CLIENT N OUTCOME key=value...      and is answered
    NS x CLIENT                             its process was ended (by kill -9) from now on
    NS f begin|end|once FAULT text...       a fault

A line is written before the operation begins (i), or with the time at which it returned (r), which
may be written a little later.  An operation without an answer is indeterminate.

KIND     acquire, renew, release, rename (key to=LOCK); read (what holds the lock); check (does my
         hold still stand: a read of its own descriptor, which answers ESTALE once it is lost)
keys     by=STYLE    oexcl, mkdir, link, rename, flock, fcntl, http, native
         mode=x|s    exclusive (also when not given) or shared;  lo=, hi=: range, hi not included
         ttl_ms=     a lease; without it a hold of a session
         wait=1      waits in the queue
         of=N        (renew, release, rename, check) the acquire that made the hold
         token=T     the hold that is meant
OUTCOME  ok          with token=T (0 or none: not known); a read: tokens=T/CLIENT,... (CLIENT may be
                     ?), or some=1: somebody (owner=CLIENT: he) is among the holders
         refused     why=held (owner=CLIENT when told), gone (there is no such hold), lost (ESTALE),
                     never (it surely was not executed); error=NAME otherwise: nothing explains it
         unknown     (time-out, connection lost, 503): it may have taken effect, at any time from
                     then on, or not
"""
import glob
import os

FOREVER = 1 << 63
MS = 1000000


class Op:
    """One operation.  inv, resp: ns; resp is FOREVER when it is indeterminate (`ended`: when the
    client gave up)."""

    __slots__ = ("id", "client", "n", "kind", "lock", "by", "exclusive", "lo", "hi", "ttl", "wait",
                 "of", "to", "inv", "resp", "ended", "outcome", "token", "tokens", "why", "owner",
                 "keys")

    def __init__(self, client, n, kind, lock, inv, keys):
        self.client, self.n, self.kind, self.lock, self.inv = client, n, kind, lock, inv
        self.id = None
        self.by = keys.get("by", "")
        self.exclusive = keys.get("mode", "x") == "x"
        self.lo, self.hi = int(keys.get("lo", 0)), int(keys.get("hi", FOREVER))
        self.ttl = int(keys["ttl_ms"]) * MS if "ttl_ms" in keys else None
        self.wait = keys.get("wait") == "1"
        self.of = int(keys["of"]) if "of" in keys else None
        self.to = keys.get("to")
        self.token = int(keys.get("token", 0))
        self.resp = self.ended = FOREVER
        self.outcome = "unknown"
        self.tokens = ()
        self.why = self.owner = None
        self.keys = keys

    def answer(self, ns, outcome, keys):
        self.ended = ns
        self.keys = dict(self.keys, **keys)
        self.outcome = outcome
        if outcome == "unknown":
            return
        self.resp = ns
        self.token = int(keys.get("token", 0)) or self.token
        self.why, self.owner = keys.get("why"), keys.get("owner")
        pairs = (p.partition("/") for p in keys.get("tokens", "").split(",") if p)
        self.tokens = tuple(sorted((int(token), client or "?") for token, _, client in pairs))

    def text(self, origin=0):
        """One readable line."""
        end = "-" if self.ended == FOREVER else f"{(self.ended - origin) / 1e6:.3f}"
        hidden = ("token", "tokens", "owner", "why", "by")
        more = " ".join(f"{k}={v}" for k, v in self.keys.items() if k not in hidden)
        said = self.outcome
        for name in ("why", "owner", "error"):
            if self.keys.get(name):
                said += f" {name}={self.keys[name]}"
        if self.token:
            said += f" token={self.token}"
        if self.kind == "read" and self.outcome == "ok":
            said += " " + (",".join(f"{t}/{c}" for t, c in self.tokens) or "free")
        return (f"{(self.inv - origin) / 1e6:11.3f} .. {end:>11s} ms  {self.client:<6s} "
                f"{self.by:<7s}{self.kind:<8s}{self.lock} {more}  -> {said}")


class Fault:
    def __init__(self, name, text, begin, end=FOREVER):
        self.name, self.text, self.begin, self.end = name, text, begin, end


class History:
    """`drift`: by what part of itself a clock of the cluster may have run fast or slow."""

    def __init__(self, drift=0.0):
        self.ops = []
        self.faults = []
        self.ends = {}  # Client: when its process was killed.
        self.problems = []
        self.drift = drift
        self.open = {}

    def add(self, op):
        op.id = len(self.ops)
        self.ops.append(op)
        return op

    def line(self, line, where=""):
        words = line.split(" ")
        try:
            ns, what = int(words[0]), words[1]
            if what == "i":
                op = Op(words[2], int(words[3]), words[4], words[5], ns, pairs(words[6:]))
                self.open[(op.client, op.n)] = self.add(op)
            elif what == "r":
                self.open.pop((words[2], int(words[3]))).answer(ns, words[4], pairs(words[5:]))
            elif what == "x":
                self.ends[words[2]] = ns
            elif what == "f":
                self.fault(ns, words[2], words[3], " ".join(words[4:]))
            else:
                raise ValueError("unknown event")
        except (ValueError, IndexError, KeyError) as e:
            self.problems.append(f"{where}: bad line ({e!r}): {line!r}")

    def fault(self, ns, what, name, text):
        if what == "end":
            for f in reversed(self.faults):
                if f.name == name and f.text == text and f.end == FOREVER:
                    f.end = ns
                    return
            self.problems.append(f"a fault ended that had not begun: {name} {text}")
        else:
            self.faults.append(Fault(name, text, ns, ns if what == "once" else FOREVER))

    def locks(self):
        """Operations by lock; locks between which holds were renamed count as one."""
        first = {}

        def root(name):
            while first.get(name, name) != name:
                name = first[name]
            return name
        for op in self.ops:
            if op.to:
                first[root(op.to)] = root(op.lock)
        out = {}
        for op in self.ops:
            out.setdefault(root(op.lock), []).append(op)
        return out


def pairs(words):
    return dict(w.split("=", 1) for w in words if w)


def read(directory, drift=0.0):
    h = History(drift)
    for path in sorted(glob.glob(os.path.join(directory, "*.hist"))):
        with open(path, encoding="ascii", errors="replace") as f:
            text = f.read()
        lines = text.split("\n")
        lines.pop()  # What a process wrote as it was killed may be cut off.
        for number, line in enumerate(lines, 1):
            h.line(line, f"{os.path.basename(path)}:{number}")
    h.ops.sort(key=lambda op: op.inv)
    for i, op in enumerate(h.ops):
        op.id = i
    return h


class Writer:
    """Appends the events of clients (or of the faults) that live in one process; a line a write."""

    def __init__(self, path, now):
        self.file = open(path, "ab", buffering=0)  # pylint: disable=consider-using-with
        self.now = now
        self.n = {}

    def put(self, text):
        self.file.write((text + "\n").encode())

    def invoke(self, client, kind, lock, **keys):
        n = self.n[client] = self.n.get(client, 0) + 1
        more = "".join(f" {k}={v}" for k, v in keys.items() if v is not None)
        self.put(f"{self.now()} i {client} {n} {kind} {lock}{more}")
        return n

    def answer(self, client, n, outcome, ns=None, **keys):
        more = "".join(f" {k}={v}" for k, v in keys.items() if v is not None)
        self.put(f"{ns or self.now()} r {client} {n} {outcome}{more}")

    def ended(self, client):
        self.put(f"{self.now()} x {client}")

    def fault(self, what, name, text):
        self.put(f"{self.now()} f {what} {name} {text}")
