"""What a run shows at its end: the table, and of a failure the smallest part of a history that fails."""
import time

import linearize
import safety
from history import FOREVER, MS

KINDS = ("acquire", "renew", "release", "rename", "read", "check")
OUTCOMES = ("ok", "refused", "unknown")


def family(lock):
    """oexcl3/key -> oexcl"""
    return lock.split("/")[0].rstrip("0123456789")


def count_table(history):
    lines = ["| operation | " + " | ".join(OUTCOMES) + " |", "|---|--:|--:|--:|"]
    for kind in KINDS:
        of_kind = [op for op in history.ops if op.kind == kind]
        if of_kind:
            counts = [sum(op.outcome == o for op in of_kind) for o in OUTCOMES]
            lines.append(f"| {kind} | " + " | ".join(map(str, counts)) + " |")
    return lines


def fault_table(history):
    counts = {}
    for f in history.faults:
        counts[f.name] = counts.get(f.name, 0) + 1
    return ["faults: " + (", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "none")]


def verdict_table(groups, verdicts):
    rows = {}
    for name, ops in groups.items():
        row = rows.setdefault(family(name), [0, 0, 0])
        row[0] += 1
        row[1] += len(ops)
        row[2] += not verdicts[name].good
    lines = ["| locks | number | operations | linearizable |", "|---|--:|--:|---|"]
    for name, (n, n_ops, bad) in sorted(rows.items()):
        lines.append(f"| {name} | {n} | {n_ops} | {'yes' if not bad else f'NOT {bad} of them'} |")
    return lines


def judge_all(history, groups):
    return {name: linearize.judge(ops, history.ends, history.drift)
            for name, ops in sorted(groups.items())}


def smallest(ops, history, verdict, seconds=30):
    """Few operations that still fail at the same answer: parts are left out, large ones first, as long
    as that is so (A. Zeller, R. Hildebrandt, Simplifying failure-inducing input, 2002)."""
    end = time.monotonic() + seconds
    part = [op for op in ops if op.inv <= verdict.at]
    # A token is always inexplicable without the acquire that may have got it.
    tokens = {verdict.op.token, *(t for t, _ in verdict.op.tokens)} - {0}
    clients = {verdict.op.client, verdict.op.owner, *(c for _, c in verdict.op.tokens)}
    needed = {op.id for op in part if op.token in tokens or op.client in clients and (
        op.kind == "acquire" and op.outcome != "refused" and not op.token or
        op.kind == "rename" and op.outcome == "unknown")}

    def fails(some):
        v = linearize.judge(some, history.ends, history.drift)
        return not v.good and v.op is verdict.op

    # All that belongs to one hold goes together, or what is left fails for another reason.
    holds = {}
    for op in part:
        if op.id not in needed and op is not verdict.op:
            n = op.n if op.kind in ("acquire", "read") else op.of or op.token
            holds.setdefault((op.client, n), []).append(op)
    units = list(holds.values())
    fixed = [op for op in part if op.id in needed or op is verdict.op]

    def together(some):
        return sorted(fixed + [op for unit in some for op in unit], key=lambda op: op.inv)

    size = max(1, len(units) // 2)
    while time.monotonic() < end:
        at, before = 0, len(units)
        while at < len(units) and time.monotonic() < end:
            rest = units[:at] + units[at + size:]
            if fails(together(rest)):
                units = rest
            else:
                at += size
        if size == 1 and len(units) == before:
            break
        size = max(1, size // 2)
    part = together(units)
    return part


def failure(name, ops, history, verdict):
    """The readable story of a lock that failed."""
    part = smallest(ops, history, verdict)
    origin = min(op.inv for op in part)
    lines = [f"{name}: NOT linearizable{'' if verdict.certain else ' (search cut: not proven)'}; "
             f"nothing explains the answer marked >, at {origin / 1e9:.6f} s + "
             f"{(verdict.at - origin) / MS:.3f} ms",
             "  the fewest operations that show it (the others left out):"]
    for op in part:
        lines.append(("> " if op is verdict.op else "  ") + op.text(origin))
    lines.append("  before it the lock was, as far as could be told: " + "; or ".join(verdict.states))
    for f in history.faults:
        if f.begin <= verdict.at and f.end >= origin:
            end = "-" if f.end == FOREVER else f"{(f.end - origin) / 1e6:.3f}"
            lines.append(f"  fault {(f.begin - origin) / 1e6:11.3f} .. {end:>11s} ms  {f.name} {f.text}")
    return lines


def judge(history):
    """(lines of the table, lines of what is wrong)"""
    groups = history.locks()
    wrong = safety.judge(history, groups)
    verdicts = judge_all(history, groups)
    for name, v in verdicts.items():
        if not v.good:
            wrong += failure(name, groups[name], history, v)
    lines = count_table(history) + [""] + verdict_table(groups, verdicts) + [""]
    lines += fault_table(history)
    if history.ops:
        begin = min(op.inv for op in history.ops)
        end = max(op.inv for op in history.ops)
        gap, at = safety.longest_gap(history.ops, begin, end)
        lines.append(f"longest time without a grant: {gap / 1e9:.2f} s (at {(at - begin) / 1e9:.1f} s "
                     f"of {(end - begin) / 1e9:.0f} s)")
    return lines, wrong
