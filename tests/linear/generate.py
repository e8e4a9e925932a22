"""Random histories of a lock that does what it must (and, on demand, one thing that it must not)."""
import heapq
import random

from history import FOREVER, History, MS, Op


class Generator:
    """Clients that work on one lock by a style, each with one operation at a time.

    `say`: what the lock answers is recorded so; unknown: the share of answers that get lost (their
    operations took effect or not, some of them much later)."""

    def __init__(self, seed, clients=4, n_ops=40, style="oexcl", unknown=0.0, ttl_ms=50):
        self.rng = random.Random(seed)
        self.style = style
        self.ttl_ms = ttl_ms
        self.session = style in ("flock", "fcntl")
        self.unknown = unknown
        self.n_ops = n_ops
        self.token = 0
        self.holds = []
        self.history = History()
        self.agenda = []  # (ns, serial, function, arguments)
        self.serial = 0
        self.clients = [f"c{i}" for i in range(clients)]
        self.counts = dict.fromkeys(self.clients, 0)
        self.mine = {}  # Client: (n, token) of the hold that it believes in.

    def at(self, ns, function, *arguments):
        self.serial += 1
        heapq.heappush(self.agenda, (ns, self.serial, function, arguments))

    def span(self):
        return int(self.rng.expovariate(1 / 4) * MS) + 1

    def run(self):
        for c in self.clients:
            self.at(self.span(), self.call, c)
        while self.agenda:
            self.now, _, function, arguments = heapq.heappop(self.agenda)
            for h in [h for h in self.holds if h["end"] is not None and h["end"] <= self.now]:
                self.holds.remove(h)
            function(*arguments)
        for i, op in enumerate(sorted(self.history.ops, key=lambda op: op.inv)):
            op.id = i
        self.history.ops.sort(key=lambda op: op.inv)
        return self.history

    def call(self, client):
        if self.n_ops <= 0:
            return
        self.n_ops -= 1
        self.counts[client] += 1
        n = self.counts[client]
        keys = {"by": self.style}
        held = self.mine.get(client)
        r = self.rng.random()
        if r < 0.25:
            kind = "read"
        elif held is None:
            kind = "acquire"
            if not self.session:
                keys["ttl_ms"] = str(self.ttl_ms)
            elif self.rng.random() < 0.5:
                keys["mode"] = "s"
            if self.style == "fcntl":
                lo = self.rng.randrange(3)
                keys.update(lo=str(lo), hi=str(lo + 1 + self.rng.randrange(2)))
        else:
            kind = self.rng.choice(["release", "release", "renew" if not self.session else "check",
                                    "check"])
            if self.style in ("http", "native") and kind == "check":
                kind = "renew"
            keys["of"] = str(held[0])
            if held[1]:
                keys["token"] = str(held[1])
            if kind == "renew":
                keys["ttl_ms"] = str(self.ttl_ms)
        op = Op(client, n, kind, "k", self.now, keys)
        self.history.add(op)
        self.at(self.now + self.span(), self.effect, op, True)

    def effect(self, op, first):
        """It takes effect, if it does; its answer comes later, or never."""
        lost = first and self.rng.random() < self.unknown
        if lost and self.rng.random() < 0.6:
            # Whether and when it reaches the lock, nobody knows.
            if self.rng.random() < 0.7:
                self.at(self.now + self.rng.randrange(1, 60) * MS, self.effect, op, False)
            self.at(self.now + self.span(), self.answer, op, "unknown", {})
            return
        outcome, keys = getattr(self, "do_" + op.kind)(op, lost or not first)
        if first:
            self.at(self.now + self.span(), self.answer, op, *(("unknown", {}) if lost else
                                                               (outcome, keys)))

    def answer(self, op, outcome, keys):
        op.answer(self.now, outcome, keys)
        client = op.client
        if op.kind == "acquire" and outcome == "ok":
            self.mine[client] = (op.n, int(keys.get("token", 0)))
        elif op.kind == "release" or op.kind in ("renew", "check") and outcome == "refused":
            self.mine.pop(client, None)
        self.at(self.now + self.span(), self.call, client)

    def find(self, op):
        for h in self.holds:
            if h["client"] == op.client and (op.of is None or h["n"] == op.of or
                                             op.token == h["token"]):
                return h
        return None

    def do_acquire(self, op, untold):
        own = op.by in ("http", "native")
        mine = [h for h in self.holds if own and h["client"] == op.client]
        if mine:
            h = mine[0]
            h["end"] = self.now + op.ttl if not untold else h["end"]
            h["untold"] = h["untold"] and untold
            return "ok", {"token": str(h["token"])}
        blocked = [h for h in self.holds if (op.exclusive or h["exclusive"]) and h not in mine and
                   h["lo"] < op.hi and op.lo < h["hi"]]
        if blocked:
            owner = {"owner": blocked[0]["client"]} if blocked and op.by == "http" else {}
            return "refused", {"why": "held", **owner}
        self.token += self.rng.randrange(1, 3)
        h = {"client": op.client, "n": op.n, "token": self.token, "exclusive": op.exclusive,
             "lo": op.lo, "hi": op.hi, "end": self.now + op.ttl if op.ttl else None, "untold": untold}
        self.holds.append(h)
        if untold and op.by != "native":  # The client library takes it back.
            self.at(self.now + self.rng.randrange(1, 80) * MS, self.take_back, h)
        return "ok", {"token": str(self.token)} if own or self.rng.random() < 0.9 else {}

    def take_back(self, h):
        if h in self.holds and h["untold"]:
            self.holds.remove(h)

    def do_renew(self, op, untold):
        h = self.find(op)
        if h is None:
            return "refused", {"why": "gone"}
        if untold and self.rng.random() < 0.5:
            return "unknown", {}
        h["end"] = self.now + op.ttl
        return "ok", {}

    def do_release(self, op, _untold):
        h = self.find(op)
        if h is None:
            return "refused", {"why": "gone"}
        self.holds.remove(h)
        return "ok", {}

    def do_check(self, op, _untold):
        return ("ok", {}) if self.find(op) else ("refused", {"why": "lost"})

    def do_read(self, _op, _untold):
        return "ok", {"tokens": ",".join(f"{h['token']}/{h['client']}" for h in self.holds)}


# What a broken lock would have shown: each changes one thing in a good history, of which it then
# says whether it could.  A changed history may happen to be possible all the same; `sure` ones
# can't be.

def spoil_double_grant(h, rng):
    """A grant in the middle of somebody's hold, with the next token."""
    for a in shuffled(h.ops, rng):
        if a.kind != "acquire" or a.outcome != "ok" or not a.exclusive or not a.token:
            continue
        uses = [o for o in h.ops if o.client == a.client and o.of == a.n and o.outcome == "ok"]
        if not uses or uses[-1].inv - a.resp < 4:
            continue
        middle = (a.resp + uses[-1].inv) // 2
        op = Op("zz", 1, "acquire", a.lock, middle, {"by": a.by, "ttl_ms": "50"})
        op.answer(middle + 1, "ok", {"token": str(a.token)})
        op.token = a.token  # No token is between: take a part of one.
        for o in h.ops:
            o.token *= 2
            o.tokens = tuple((2 * t, c) for t, c in o.tokens)
        op.token = 2 * a.token + 1
        insert(h, op)
        return True
    return False


def spoil_stale_read(h, rng):
    """A read that begins after a release was answered and still sees the hold."""
    for r in shuffled(h.ops, rng):
        if r.kind == "release" and r.outcome == "ok" and r.token:
            op = Op("zz", 1, "read", r.lock, r.resp + 1, {"by": r.by})
            op.answer(r.resp + 2, "ok", {"tokens": f"{r.token}/{r.client}"})
            insert(h, op)
            return True
    return False


def spoil_blind_read(h, rng):
    """A read in the middle of a hold that says it is free."""
    for a in shuffled(h.ops, rng):
        if a.kind == "acquire" and a.outcome == "ok":
            uses = [o for o in h.ops if o.client == a.client and o.of == a.n and o.outcome == "ok"]
            if uses and uses[-1].inv - a.resp > 4:
                op = Op("zz", 1, "read", a.lock, a.resp + 1, {"by": a.by})
                op.answer(a.resp + 2, "ok", {"tokens": ""})
                insert(h, op)
                return True
    return False


def spoil_token_reused(h, rng):
    """A grant gets the token of an earlier one."""
    grants = [o for o in h.ops if o.kind == "acquire" and o.outcome == "ok" and o.token]
    rng.shuffle(grants)
    for b in grants:
        for a in grants:
            if a.client != b.client and a.resp < b.inv:
                b.token = a.token
                return True
    return False


def spoil_tokens_back(h, rng):
    """A grant has a lower token than one that was known before it was asked for."""
    grants = [o for o in h.ops if o.kind == "acquire" and o.outcome == "ok" and o.token]
    rng.shuffle(grants)
    for b in grants:
        for a in grants:
            if a.resp < b.inv and a.exclusive and b.exclusive and a.token < b.token:
                a.token, b.token = b.token, a.token
                for o in h.ops:
                    if o.of is not None and (o.client, o.of) in ((a.client, a.n), (b.client, b.n)):
                        o.token = 0
                return True
    return False


def spoil_lost_release(h, rng):
    """A release is answered as done twice."""
    for r in shuffled(h.ops, rng):
        if r.kind == "release" and r.outcome == "ok" and r.token:
            op = Op(r.client, 10000, "release", r.lock, r.resp + 1, dict(r.keys))
            op.answer(r.resp + 2, "ok", {})
            op.token = r.token
            insert(h, op)
            return True
    return False


def spoil_resurrected(h, rng):
    """A lease is renewed after another's grant was answered."""
    grants = [o for o in h.ops if o.kind == "acquire" and o.outcome == "ok" and o.token and
              o.exclusive and o.lo == 0]
    rng.shuffle(grants)
    for a in grants:
        for b in grants:
            if a.client != b.client and a.token < b.token and a.by not in ("flock", "fcntl"):
                op = Op(a.client, 10000, "renew", a.lock, b.resp + 1,
                        {"by": a.by, "of": str(a.n), "token": str(a.token), "ttl_ms": "50"})
                op.answer(b.resp + 2, "ok", {})
                insert(h, op)
                return True
    return False


def spoil_no_holder(h, rng):
    """A refusal when nobody ever asked for the lock before."""
    first = min(o.inv for o in h.ops)
    op = Op("zz", 1, "acquire", h.ops[0].lock, first - 2, {"by": h.ops[0].by, "ttl_ms": "50"})
    op.answer(first - 1, "refused", {"why": "held"})
    insert(h, op)
    return rng is not None


def spoil_early_end(h, rng):
    """The lock is seen free long before its lease's end, without a release."""
    for a in shuffled(h.ops, rng):
        if a.kind == "acquire" and a.outcome == "ok" and a.ttl and not [
                o for o in h.ops if o.client == a.client and o.kind == "release" and
                o.inv < a.inv + a.ttl and o.resp > a.inv]:
            at = a.resp + 1
            if at > a.inv + a.ttl // 2 or any(
                    o.kind == "renew" and o.outcome == "unknown" and o.client == a.client
                    for o in h.ops) or any(
                    o.kind == "acquire" and o.outcome == "ok" and o.token == a.token and o is not a
                    for o in h.ops):
                continue
            op = Op("zz", 1, "read", a.lock, at, {"by": a.by})
            op.answer(at + 1, "ok", {"tokens": ""})
            insert(h, op)
            return True
    return False


def spoil_ghost(h, rng):
    """A read sees a token that nobody was given, and no answer was lost."""
    if any(o.outcome == "unknown" or o.kind == "acquire" and o.outcome == "ok" and not o.token
           for o in h.ops):
        return False
    at = max(o.resp for o in h.ops)
    op = Op("zz", 1, "read", h.ops[0].lock, at + 1, {"by": h.ops[0].by})
    op.answer(at + 2, "ok", {"tokens": "999999/?"})
    insert(h, op)
    return rng is not None


SPOILS = {name[6:]: f for name, f in list(globals().items()) if name.startswith("spoil_")}


def shuffled(things, rng):
    out = list(things)
    rng.shuffle(out)
    return out


def insert(h, op):
    h.add(op)
    h.ops.sort(key=lambda o: o.inv)
    for i, o in enumerate(h.ops):
        o.id = i


def scramble(h, rng):
    """Change anything: what comes out may be possible or not."""
    for _ in range(rng.randrange(1, 3)):
        op = rng.choice(h.ops)
        what = rng.randrange(5)
        if what == 0 and op.outcome == "ok" and op.kind in ("renew", "release"):
            op.outcome, op.why = "refused", "gone"
        elif what == 1 and op.kind == "acquire" and op.outcome == "refused":
            op.outcome, op.why, op.token, op.owner = "ok", None, rng.randrange(1, 12), None
        elif what == 2 and op.kind == "read":
            op.tokens = tuple((t, c) for t, c in op.tokens[1:]) if op.tokens and rng.random() < 0.5 \
                else ((rng.randrange(1, 12), "?"),)
        elif what == 3 and op.kind == "acquire" and op.outcome == "ok":
            op.token = max(0, op.token + rng.choice([-2, -1, 1, 2]))
        elif what == 4 and op.resp < FOREVER:
            op.resp = op.inv + max(1, (op.resp - op.inv) // 8)
