"""The slowest judge of a small history: try every order and every ending of holds.

It shares nothing with linearize.py but the operations, and no short cut; what it says of random
small histories linearize.py has to say too.  (Wing and Gong's search, without memory.)
Single lock, no renames, no waiters.
"""
from history import FOREVER, MS

MOUNTS = ("oexcl", "mkdir", "link", "flock", "fcntl")


def judge(ops, drift=0.0):
    ops = [op for op in ops if op.outcome != "unknown" or op.kind != "read"]
    seen = set()

    def end_of(op):
        if op.ttl is None:
            return op.inv
        ttl = op.ttl - int(op.ttl * drift)
        return op.inv + (ttl - op.ttl // 128 - 5 * MS if op.by in MOUNTS else ttl)

    given = {op.token: (op.client, None if op.by in ("http", "native") else op.n) for op in sorted(ops, key=lambda o: o.id)
             if op.kind == "acquire" and op.outcome == "ok" and op.token}
    longest = {op.client: max(o.ttl or 0 for o in ops if o.client == op.client) for op in ops}

    def may_have(h, token):
        client, n = given.get(token, (h[0], None))
        return client == h[0] and n in (None, h[1])

    def shorter(end, op):
        """The earliest end of a lease after a renewal that nobody was told of."""
        new = op.inv + op.ttl - op.ttl // 128 - 5 * MS - int(op.ttl * drift)
        return min(end, max(new, end - longest[op.client] + op.ttl))

    # A hold: (client, n, token, exclusive, lo, hi, end, sure); sure: its client was told of it.
    def apply(holds, highest, op):
        """All (holds, highest) after op."""
        sure = op.outcome == "ok"

        def mine(h):
            if h[0] != op.client:
                return False
            if op.token and h[2]:
                return op.token == h[2]
            return op.of is None or op.of == h[1]

        def with_token(h):
            """The hold with the token of op, if it may be; None if not."""
            if not op.token or h[2] == op.token:
                return h
            if h[2] or any(x[2] == op.token for x in holds) or \
                    not may_have(h, op.token):
                return None
            if h[3] and h[4] == 0 and h[5] == FOREVER and op.token <= highest:
                return None
            return h[:2] + (op.token,) + h[3:]

        def others_in_the_way():
            own = op.by in ("http", "native")
            return [h for h in holds if not (own and h[0] == op.client) and
                    (h[3] or op.exclusive) and h[4] < op.hi and op.lo < h[5]]

        out = []
        if op.kind == "acquire" and op.outcome != "refused":
            own = [h for h in holds if h[0] == op.client and h[4] < op.hi and op.lo < h[5]
                   and op.by in ("http", "native")]
            for h in own:
                g = with_token(h)
                if g:
                    end = end_of(op) if sure else shorter(g[6], op)
                    out.append((holds - {h} | {g[:6] + (end, h[7] or sure)}, max(highest, g[2])))
            if not others_in_the_way() and not own and not 0 < op.token <= highest:
                h = (op.client, op.n, op.token, op.exclusive, op.lo, op.hi,
                     end_of(op) if sure or op.by == "native" else op.inv, sure)
                out.append((holds | {h}, max(highest, op.token)))
        elif op.kind == "acquire":
            if any(op.owner in (None, h[0]) for h in others_in_the_way()):
                out.append((holds, highest))
        elif op.kind in ("renew", "release", "check"):
            if op.outcome == "refused":
                if op.why != "gone" or not any(mine(h) for h in holds):
                    out.append((holds, highest))
            for h in holds if op.outcome != "refused" else ():
                g = with_token(h) if mine(h) else None
                if g is None:
                    continue
                top = max(highest, g[2])
                if op.kind == "release":
                    out.append((holds - {h}, top))
                elif op.kind == "check":
                    out.append((holds - {h} | {g}, top))
                elif sure:
                    out.append((holds - {h} | {g[:6] + (end_of(op), True)}, top))
                else:
                    out.append((holds - {h} | {g[:6] + (shorter(g[6], op), g[7])}, top))
        elif op.kind == "read" and op.outcome == "ok":
            out += [(frozenset(x), top) for x, top in bind(holds, highest, dict(op.tokens))]
        elif op.kind == "read":
            out.append((holds, highest))
        return out

    def bind(holds, highest, wanted):
        """Ways to make the tokens of the holds just those that were seen."""
        if len(holds) != len(wanted):
            return []
        ways = [(set(), highest, set())]
        for h in sorted(holds):
            more = []
            for done, top, used in ways:
                for token, client in wanted.items():
                    if token in used or h[2] not in (0, token):
                        continue
                    if not h[2] and (not may_have(h, token) or client not in ("?", h[0]) or
                                     h[3] and h[4] == 0 and h[5] == FOREVER and token <= highest):
                        continue
                    more.append((done | {h[:2] + (token,) + h[3:]}, max(top, token), used | {token}))
            ways = more
        return [(done, top) for done, top, _ in ways]

    def search(todo, holds, highest, low):
        """todo: what has not taken effect; low: no instant from here on is before it."""
        if not any(op.outcome != "unknown" for op in todo):
            return True
        key = (tuple(op.id for op in todo), holds, highest, low)
        if key in seen:
            return False
        seen.add(key)
        first = min(op.resp for op in todo)
        if low > first:
            return False
        for h in holds:
            if max(low, h[6]) <= first and search(todo, holds - {h}, highest, max(low, h[6])):
                return True
        for op in todo:
            if op.inv <= first:
                rest = [x for x in todo if x is not op]
                for after, top in apply(holds, highest, op):
                    if search(rest, frozenset(after), top, max(low, op.inv)):
                        return True
        return False

    return search(sorted(ops, key=lambda op: op.inv), frozenset(), 0, 0)
