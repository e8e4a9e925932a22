"""Direct judgements of a history, beside its linearizability: by what each client believed.

- Belief: a client believes in its hold from the answer that granted it until it asked for its
  release, its own deadline (of a lease: the ttl after the last grant or renewal was *sent*, less the
  allowance of the design, section 4), or, without a lease, the last check that said it stands.
  Conflicting beliefs never overlap.
- Tokens: none is given twice; one that was asked for after another was seen is higher.
- Nobody is told that a lease is lost before its own deadline (unless he asked for its release).
- What was lost or released stays so.
- Every refusal has a reason that is known.
"""
from history import FOREVER, MS
from linearize import OWNERS


class Belief:
    """In one hold under one name."""

    def __init__(self, op):
        self.op = op
        self.lock = op.lock
        self.begin = op.resp
        self.end = op.resp + (op.ttl is None)  # At that moment at least, if its deadline is not over.
        self.deadline = None
        self.over = False  # Released, or told lost.
        self.renewed(op)

    def renewed(self, op):
        if op.ttl is not None:
            allowance = op.ttl // 128 + 5 * MS
            self.deadline = op.inv + op.ttl - allowance
            self.end = max(self.end, self.deadline)

    def overlap(self, other):
        a, b = self.op, other.op
        return (self.lock == other.lock and (a.exclusive or b.exclusive) and a.lo < b.hi and b.lo < a.hi and
                max(self.begin, other.begin) < min(self.end, other.end))


def beliefs(ops, say):
    """The beliefs at the locks of one group; what contradicts itself is said."""
    out = []
    by_hold = {}
    for op in sorted(ops, key=lambda o: o.ended):
        if op.kind == "acquire" and op.outcome == "ok":
            # Over HTTP an owner that asks again has the same hold, and token.
            old = by_hold.get((op.client, "token", op.token)) if op.token else None
            if old:
                # Whose release was asked for and not answered is not believed in any more.
                if not old.over:
                    old.renewed(op)
                by_hold[(op.client, op.n)] = old
                continue
            b = Belief(op)
            out.append(b)
            by_hold[(op.client, op.n)] = b
            if op.token:
                by_hold[(op.client, "token", op.token)] = b
            by_hold[(op.client, "last")] = b
            continue
        if op.kind not in ("renew", "release", "check", "rename") or op.why == "never":
            continue
        b = by_hold.get((op.client, op.of)) if op.of is not None else \
            by_hold.get((op.client, "token", op.token)) if op.token else \
            by_hold.get((op.client, "last"))
        if b is None:
            continue
        if op.kind == "release":
            b.end = min(b.end, op.inv) if b.deadline else max(b.begin, b.end)
            if op.outcome == "ok" and b.over and op.by not in OWNERS:
                say(f"{op.lock}: {op.client} released what was over: {op.text()}")
            told(b, op, say)
            b.over = True
        elif op.outcome == "ok":
            if b.over and op.by not in OWNERS:
                say(f"{op.lock}: {op.client} was told that a hold stands which was over: {op.text()}")
            if op.kind == "renew":
                b.renewed(op)
            elif op.kind == "rename":
                moved(b, op, out, by_hold)
            elif not b.deadline:
                b.end = max(b.end, op.inv)  # It stood at some moment after that.
        elif op.outcome == "unknown":
            if op.kind == "rename":  # Then the lock is lost (README): which name is his?
                b.end = min(b.end, op.inv)
                b.over = True
        elif op.kind != "rename" or op.why != "held":
            told(b, op, say)
            b.over = True
            b.end = min(b.end, op.resp)
    return out


def moved(b, op, out, by_hold):
    """The belief goes on under another name."""
    new = Belief(b.op)
    new.lock, new.begin = op.to, op.resp
    new.deadline = new.end = b.deadline
    b.end = min(b.end, op.inv)
    out.append(new)
    for key, value in list(by_hold.items()):
        if value is b:
            by_hold[key] = new


def told(b, op, say):
    """A refusal says that the hold is lost: not before its deadline."""
    if op.outcome == "refused" and not b.over and b.deadline and \
            op.resp < b.deadline - b.op.ttl // 200:
        say(f"{op.lock}: {op.client} was told that its lease is lost "
            f"{(b.deadline - op.resp) / MS:.3f} ms before its own deadline: {op.text()}")


def overlaps(found, say):
    """Neighbours in time that conflict."""
    active = []
    for b in sorted(found, key=lambda x: x.begin):
        active = [a for a in active if a.end > b.begin]
        for a in active:
            if a.overlap(b):
                ms = (min(a.end, b.end) - b.begin) / MS
                say(f"{b.lock}: two holders for {ms:.3f} ms: {a.op.client} (token {a.op.token}) "
                    f"and {b.op.client} (token {b.op.token})")
        active.append(b)


def tokens(ops, say):
    given = {}
    for op in ops:
        if op.kind == "acquire" and op.outcome == "ok" and op.token:
            first = given.setdefault(op.token, op)
            if first.client != op.client or first.lock != op.lock:
                say(f"token {op.token} was given to {first.client} for {first.lock} and to "
                    f"{op.client} for {op.lock}")
    # What was asked for after another was seen is higher; an owner that asks again apart.
    grants = list(given.values())
    seen = sorted((op.resp, op.token) for op in grants)
    highest = i = 0
    for op in sorted(grants, key=lambda o: o.inv):
        while i < len(seen) and seen[i][0] < op.inv:
            highest = max(highest, seen[i][1])
            i += 1
        if op.token < highest:
            untold = any(o.outcome == "unknown" and o.kind == "acquire" and o.client == op.client and
                         o.lock == op.lock and o.inv < op.inv for o in ops) if op.by in OWNERS else False
            if not untold:
                say(f"token {op.token} of {op.lock} was asked for after {highest} was seen")


def judge(history, groups):
    """Sentences; none if all is well."""
    out = []
    for ops in groups.values():
        overlaps(beliefs(ops, out.append), out.append)
    tokens(history.ops, out.append)
    for op in history.ops:
        if op.outcome == "refused" and op.why is None:
            out.append(f"nothing explains: {op.text()}")
    out += history.problems
    return out


def longest_gap(ops, begin, end, what=lambda op: op.outcome == "ok" and op.kind == "acquire"):
    """The longest time in which nothing of that kind succeeded: (ns, from when)."""
    times = sorted([begin] + [op.resp for op in ops if what(op) and op.resp < FOREVER] + [end])
    return max(((b - a), a) for a, b in zip(times, times[1:]))
