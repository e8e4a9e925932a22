#!/usr/bin/python3
"""The linearizability checker judged: good histories pass, each kind of anomaly is found, and on small
random histories it says what a naive search through everything says.

    tests/linear/test_linear.py [--compare N]     N: how many small histories are compared
"""
import argparse
import os
import random
import runpy
import subprocess
import sys
import tempfile
import unittest
from types import SimpleNamespace

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import generate  # noqa: E402
import growth  # noqa: E402
import linearize  # noqa: E402
import naive  # noqa: E402
import safety  # noqa: E402
from history import History  # noqa: E402

STYLES = ("oexcl", "http", "native", "flock", "fcntl")
N_COMPARE = 1000


def parse(text):
    """A history by hand, times in ms."""
    h = History()
    for line in text.strip().splitlines():
        ms, rest = line.split(None, 1)
        h.line(f"{int(float(ms) * 1e6)} {rest}")
    assert not h.problems, h.problems
    h.ops.sort(key=lambda op: op.inv)
    for i, op in enumerate(h.ops):
        op.id = i
    return h


def verdict(text):
    h = parse(text)
    return linearize.judge(h.ops, h.ends)


class Hand(unittest.TestCase):
    def good(self, text):
        v = verdict(text)
        self.assertTrue(v.good, f"{v.op and v.op.text()}; before: {v.states}")

    def bad(self, text, at=None):
        v = verdict(text)
        self.assertFalse(v.good, text)
        self.assertTrue(v.certain)
        if at is not None:
            self.assertEqual((v.op.client, v.op.n), at)

    def test_cycle(self):
        self.good("""
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 ok token=1
            3 i b 1 acquire k by=oexcl ttl_ms=1000
            4 r b 1 refused why=held
            5 i a 2 release k by=oexcl of=1 token=1
            6 i b 2 acquire k by=oexcl ttl_ms=1000
            7 r b 2 ok token=2
            8 r a 2 ok""")

    def test_double_grant(self):
        self.bad("""
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 ok token=1
            3 i b 1 acquire k by=oexcl ttl_ms=1000
            4 r b 1 ok token=2""", ("b", 1))

    def test_expiry(self):
        text = """
            0 i a 1 acquire k by=http ttl_ms=1000
            2 r a 1 ok token=1
            3 i b 1 acquire k by=http ttl_ms=1000
            {} r b 1 ok token=2"""
        self.bad(text.format(999))
        self.good(text.format(1001))

    def test_expiry_of_a_mount_comes_by_its_own_deadline(self):
        text = """
            0 i a 1 acquire k by=oexcl ttl_ms=1280
            2 r a 1 ok token=1
            3 i b 1 read k by=oexcl
            {} r b 1 ok tokens="""
        self.bad(text.format(1264))
        self.good(text.format(1266))

    def test_renewal_moves_the_end(self):
        text = """
            0 i a 1 acquire k by=http ttl_ms=100
            2 r a 1 ok token=1
            50 i a 2 renew k by=http of=1 token=1 ttl_ms=100
            52 r a 2 ok
            60 i b 1 acquire k by=http ttl_ms=100
            {} r b 1 ok token=2"""
        self.bad(text.format(149))
        self.good(text.format(151))

    def test_renewal_may_shorten(self):
        self.good("""
            0 i a 1 acquire k by=http ttl_ms=100
            2 r a 1 ok token=1
            5 i a 2 renew k by=http of=1 token=1 ttl_ms=10
            9 r a 2 unknown
            10 i b 1 acquire k by=http ttl_ms=100
            17 r b 1 ok token=2""")

    def test_resurrected_lease(self):
        self.bad("""
            0 i a 1 acquire k by=http ttl_ms=10
            2 r a 1 ok token=1
            30 i b 1 read k by=http
            31 r b 1 ok tokens=
            32 i a 2 renew k by=http of=1 token=1 ttl_ms=10
            33 r a 2 ok""")

    def test_stale_read(self):
        self.bad("""
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 ok token=1
            3 i a 2 release k by=oexcl of=1 token=1
            4 r a 2 ok
            5 i b 1 read k by=oexcl
            6 r b 1 ok tokens=1/a""", ("b", 1))

    def test_read_beside_the_release_may_see_either(self):
        for tokens in ("", "1/a"):
            self.good(f"""
                0 i a 1 acquire k by=oexcl ttl_ms=1000
                2 r a 1 ok token=1
                3 i a 2 release k by=oexcl of=1 token=1
                4 i b 1 read k by=oexcl
                5 r a 2 ok
                6 r b 1 ok tokens={tokens}""")

    def test_two_reads_go_one_way(self):
        self.bad("""
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 ok token=1
            3 i a 2 release k by=oexcl of=1 token=1
            4 i b 1 read k by=oexcl
            5 r b 1 ok tokens=
            6 i b 2 read k by=oexcl
            7 r b 2 ok tokens=1/a
            9 r a 2 ok""", ("b", 2))

    def test_refusal_without_a_holder(self):
        self.bad("""
            0 i b 1 acquire k by=oexcl ttl_ms=1000
            1 r b 1 refused why=held""")

    def test_refusal_names_its_owner(self):
        text = """
            0 i a 1 acquire k by=http ttl_ms=1000
            2 r a 1 ok token=1
            3 i b 1 acquire k by=http ttl_ms=1000
            4 r b 1 refused why=held owner={}"""
        self.good(text.format("a"))
        self.bad(text.format("c"))

    def test_refusal_by_an_untold_grant(self):
        text = """
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 unknown
            3 i b 1 acquire k by=oexcl ttl_ms=1000
            4 r b 1 refused why=held
            5 i b 2 acquire k by=oexcl ttl_ms=1000
            6 r b 2 ok token=5"""
        self.good(text)
        self.bad(text + """
            7 i c 1 acquire k by=oexcl ttl_ms=1000
            8 r c 1 ok token=6""", ("c", 1))
        # It has been and is gone: it can't come a second time.
        self.bad(text + """
            7 i b 3 release k by=oexcl of=2 token=5
            8 r b 3 ok
            9 i c 1 acquire k by=oexcl ttl_ms=1000
            10 r c 1 refused why=held""", ("c", 1))

    def test_untold_grant_is_named_later(self):
        text = """
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 unknown
            3 i b 1 read k by=oexcl
            4 r b 1 ok tokens=7/{}
            5 i b 2 read k by=oexcl
            6 r b 2 ok tokens={}/?
            7 i b 3 acquire k by=oexcl ttl_ms=1000
            8 r b 3 ok token={}"""
        self.good(text.format("a", 7, 8))
        self.bad(text.format("c", 7, 8), ("b", 1))
        self.bad(text.format("a", 8, 9), ("b", 2))
        self.bad(text.format("a", 7, 6), ("b", 3))

    def test_untold_release(self):
        text = """
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 ok token=1
            {} i a 2 release k by=oexcl of=1 token=1
            9 r a 2 unknown
            3 i b 1 acquire k by=oexcl ttl_ms=1000
            4 r b 1 ok token=2"""
        self.good(text.format(2.5))
        self.bad(text.format(5))

    def test_lost_release(self):
        self.bad("""
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 ok token=1
            3 i a 2 release k by=oexcl of=1 token=1
            4 r a 2 ok
            5 i b 1 acquire k by=oexcl ttl_ms=1000
            6 r b 1 refused why=held""", ("b", 1))

    def test_tokens_grow(self):
        text = """
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 ok token=5
            3 i a 2 release k by=oexcl of=1 token=5
            4 r a 2 ok
            5 i b 1 acquire k by=oexcl ttl_ms=1000
            6 r b 1 ok token={}"""
        self.good(text.format(6))
        self.bad(text.format(5))
        self.bad(text.format(4))

    def test_shared(self):
        text = """
            0 i a 1 acquire k by=flock mode=s
            2 r a 1 ok token=1
            3 i b 1 acquire k by=flock mode={}
            4 r b 1 ok token=2
            5 i a 2 check k by=flock of=1 token=1
            6 r a 2 ok"""
        self.good(text.format("s"))
        self.bad(text.format("x"))

    def test_session_hold_is_lost(self):
        text = """
            0 i a 1 acquire k by=flock
            2 r a 1 ok token=1
            3 i b 1 acquire k by=flock
            40 r b 1 ok token=2
            41 i a 2 check k by=flock of=1 token=1
            42 r a 2 """
        self.good(text + "refused why=lost")
        self.bad(text + "ok", ("b", 1))

    def test_ranges(self):
        text = """
            0 i a 1 acquire k by=fcntl lo=0 hi=10
            2 r a 1 ok token=1
            3 i b 1 acquire k by=fcntl lo={} hi=20
            4 r b 1 ok token=2
            5 i a 2 check k by=fcntl of=1 token=1
            6 r a 2 ok"""
        self.good(text.format(10))
        self.bad(text.format(9))

    def test_waiter_refuses_others(self):
        text = """
            0 i a 1 acquire k by=flock mode=s
            2 r a 1 ok token=1
            3 i b 1 acquire k by=flock wait={}
            4 i c 1 acquire k by=flock mode=s
            5 r c 1 refused why=held
            7 i a 2 release k by=flock of=1 token=1
            8 r a 2 ok
            9 r b 1 ok token=2"""
        self.good(text.format(1))
        self.bad(text.format(0), ("c", 1))

    def test_waiter_that_waits_in_vain_refuses_others(self):
        self.good("""
            0 i a 1 acquire k by=flock mode=s
            2 r a 1 ok token=1
            3 i b 1 acquire k by=http ttl_ms=1000 wait=1
            4 i c 1 acquire k by=flock mode=s
            5 r c 1 refused why=held
            900 r b 1 refused why=held""")

    def test_killed_client_lets_go_of_a_session_hold_only(self):
        text = """
            0 i a 1 acquire k {}
            2 r a 1 ok token=1
            3 i a 2 check k {} of=1 token=1
            4 r a 2 ok
            5 x a
            6 i b 1 acquire k by=oexcl ttl_ms=1000
            7 r b 1 ok token=2"""
        self.good(text.format("by=flock", "by=flock"))
        self.bad(text.format("by=oexcl ttl_ms=1000", "by=oexcl"))

    def test_acquired_again_by_its_owner(self):
        text = """
            0 i a 1 acquire k by=http ttl_ms=100
            2 r a 1 unknown
            3 i a 2 acquire k by=http ttl_ms=100
            4 r a 2 ok token=1
            50 i a 3 acquire k by=http ttl_ms=100
            51 r a 3 ok token=1
            52 i b 1 acquire k by=http ttl_ms=100
            {} r b 1 ok token=2"""
        self.good(text.format(151))
        self.bad(text.format(149))

    def test_rename(self):
        text = """
            0 i a 1 acquire k1 by=rename ttl_ms=1000
            2 r a 1 ok token=1
            3 i a 2 rename k1 to=k2 by=rename of=1 token=1
            9 r a 2 {}
            4 i b 1 acquire {} by=rename ttl_ms=1000
            5 r b 1 ok token=2
            10 i c 1 acquire k2 by=rename ttl_ms=1000
            11 r c 1 refused why=held"""
        self.good(text.format("ok", "k1"))
        self.bad(text.format("ok", "k2"), ("a", 2))
        self.good(text.format("unknown", "k1"))
        self.good(text.format("unknown", "k2"))
        self.bad(text.format("refused why=held", "k1"))

    def test_names_of_a_rename_are_held_by_several(self):
        self.good("""
            0 i a 1 acquire k1 by=rename ttl_ms=1000
            2 r a 1 ok
            3 i b 1 acquire k2 by=rename ttl_ms=1000
            4 r b 1 ok token=7
            5 i b 2 rename k2 to=k1 by=rename of=1 token=7
            6 r b 2 refused why=held
            7 i c 1 read k1 by=rename
            8 r c 1 ok tokens=5/a""")

    def test_cut_line_is_a_problem(self):
        h = History()
        h.line("12 i a 1")
        h.line("13 r a 1 ok token=1")
        self.assertEqual(len(h.problems), 2)


class Random(unittest.TestCase):
    def histories(self, n, **options):
        for seed in range(n):
            style = STYLES[seed % len(STYLES)]
            yield seed, style, generate.Generator(seed, style=style, **options).run()

    def test_good_ones_pass(self):
        for unknown in (0.0, 0.1, 0.3):
            for seed, style, h in self.histories(100, n_ops=120, clients=6, unknown=unknown):
                v = linearize.judge(h.ops, h.ends)
                self.assertTrue(v.good, f"{style} seed {seed} unknown {unknown}: {v}")

    def test_each_anomaly_is_found(self):
        for name, spoil in generate.SPOILS.items():
            n = 0
            for seed, style, h in self.histories(60, n_ops=60):
                if style == "fcntl" or name == "resurrected" and style == "flock":
                    continue
                if not spoil(h, random.Random(seed)):
                    continue
                n += 1
                v = linearize.judge(h.ops, h.ends)
                self.assertFalse(v.good, f"{name} in {style} seed {seed} was not found:\n" +
                                 "\n".join(o.text() for o in h.ops))
                self.assertTrue(v.certain, name)
            self.assertGreater(n, 5, name)

    def test_as_a_naive_search_says(self):
        said = {True: 0, False: 0}
        for seed in range(N_COMPARE):
            rng = random.Random(seed)
            style = STYLES[seed % len(STYLES)]
            h = generate.Generator(seed, style=style, clients=rng.randrange(2, 5),
                                   n_ops=rng.randrange(4, 10), ttl_ms=rng.choice([12, 30, 100]),
                                   unknown=rng.choice([0, 0.2, 0.5])).run()
            if rng.random() < 0.7:
                generate.scramble(h, rng)
            v = linearize.judge(h.ops, h.ends)
            wanted = naive.judge(h.ops)
            said[wanted] += 1
            self.assertEqual(v.good, wanted, f"{style} seed {seed}: {v}\n" +
                             "\n".join(o.text() for o in h.ops))
        self.assertGreater(min(said.values()), N_COMPARE // 20, said)


class Belief(unittest.TestCase):
    """What safety.py finds in what clients believed."""

    def said(self, text):
        h = parse(text)
        return safety.judge(h, h.locks())

    def test_beliefs_that_overlap(self):
        text = """
            0 i a 1 acquire k by=http ttl_ms=1000
            2 r a 1 ok token=1
            3 i b 1 acquire k by=http ttl_ms=1000
            {} r b 1 ok token=2"""
        self.assertEqual(self.said(text.format(988)), [])  # 1000 - 1000/128 - 5.
        self.assertRegex(self.said(text.format(986))[0], "two holders for 1.188 ms")

    def test_belief_ends_with_the_wish_to_release(self):
        self.assertEqual(self.said("""
            0 i a 1 acquire k by=http ttl_ms=1000
            2 r a 1 ok token=1
            3 i a 2 release k by=http of=1 token=1
            4 i b 1 acquire k by=http ttl_ms=1000
            5 r b 1 ok token=2
            6 r a 2 unknown"""), [])

    def test_session_hold_stands_until_the_last_check(self):
        text = """
            0 i a 1 acquire k by=flock
            2 r a 1 ok token=1
            3 i b 1 acquire k by=flock
            9 r b 1 ok token=2
            {} i a 2 check k by=flock of=1 token=1
            12 r a 2 ok"""
        self.assertEqual(self.said(text.format(8)), [])
        self.assertRegex(self.said(text.format(10))[0], "two holders")

    def test_rename_without_an_answer_loses_the_lock(self):
        self.assertEqual(self.said("""
            0 i a 1 acquire k1 by=rename ttl_ms=1000
            2 r a 1 ok token=1
            3 i a 2 rename k1 to=k2 by=rename of=1 token=1
            5 i b 1 acquire k1 by=rename ttl_ms=1000
            6 r b 1 ok token=2
            9 r a 2 unknown"""), [])

    def test_names_of_a_moved_hold(self):
        text = """
            0 i a 1 acquire k1 by=rename ttl_ms=1000
            2 r a 1 ok token=1
            3 i a 2 rename k1 to=k2 by=rename of=1 token=1
            4 r a 2 ok
            5 i b 1 acquire {} by=rename ttl_ms=1000
            6 r b 1 ok token=2"""
        self.assertEqual(self.said(text.format("k1")), [])
        self.assertRegex(self.said(text.format("k2"))[0], "two holders")

    def test_told_lost_too_early(self):
        text = """
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 ok token=1
            {} i a 2 check k by=oexcl of=1 token=1
            {} r a 2 refused why=lost"""
        self.assertEqual(self.said(text.format(985, 988)), [])
        self.assertRegex(self.said(text.format(500, 501))[0], "lost 486.188 ms before")

    def test_tokens(self):
        text = """
            0 i a 1 acquire k1 by=http ttl_ms=1000
            2 r a 1 ok token=5
            3 i b 1 acquire k2 by=http ttl_ms=1000
            4 r b 1 ok token={}"""
        self.assertEqual(self.said(text.format(6)), [])
        self.assertRegex(self.said(text.format(5))[0], "token 5 was given to a for k1 and to b")
        self.assertRegex(self.said(text.format(4))[0], "token 4 of k2 was asked for after 5 was seen")

    def test_what_nothing_explains(self):
        self.assertRegex(self.said("""
            0 i a 1 acquire k by=oexcl ttl_ms=1000
            2 r a 1 refused error=22""")[0], "nothing explains")

    def test_lost_for_ever(self):
        self.assertRegex(self.said("""
            0 i a 1 acquire k by=flock
            2 r a 1 ok token=1
            3 i a 2 check k by=flock of=1
            4 r a 2 refused why=lost
            5 i a 3 check k by=flock of=1
            6 r a 3 ok""")[0], "told that a hold stands which was over")


class Soak(unittest.TestCase):
    """What tests/soak calls growth."""

    def series(self, quantity, value):
        s = growth.Series(quantity)
        for i in range(300):
            s.add(i * 10.0, value(i))
        return s

    def test_flat_is_flat(self):
        noise = random.Random(1)
        self.assertIsNone(self.series("rss", lambda i: 20 + noise.uniform(-2, 2)).grew())
        self.assertIsNone(self.series("fds", lambda i: 30 + i % 7).grew())
        # It grew while it warmed up, and stays.
        self.assertIsNone(self.series("rss", lambda i: min(60, 10 + 2 * i)).grew())

    def test_growth_is_growth(self):
        s = self.series("other", lambda i: 20 + i * 0.1)
        self.assertIn("resident without their peak grew", s.grew())
        self.assertAlmostEqual(s.slope_per_hour(), 36.0, places=3)
        self.assertIn("resident", self.series("rss", lambda i: 20 + i).grew())
        self.assertIn("threads", self.series("threads", lambda i: 3 + i // 30).grew())
        self.assertIn("disk", self.series("disk", lambda i: 20 + i).grew())
        lines, wrong = growth.table({"node 1": {"other": s}})
        self.assertEqual(len(lines), 3)
        self.assertEqual(len(wrong), 1)

    def test_descriptors_are_those_that_stay(self):
        # Connections of the bench, open for half of the time, later for most of it.
        self.assertIsNone(self.series("fds", lambda i: 25 + 20 * (i % 10 < (5, 8)[i > 200])).grew())
        self.assertIn("descriptors", self.series("fds", lambda i: 25 + i // 10 + 20 * (i % 2)).grew())

    def test_windows_are_no_leak(self):
        # Of 20 MiB at the start and 34 at the end, a busier log takes 14.
        def resident(leak):
            kept, other = growth.Kept(), growth.Series("other")
            for i in range(300):
                log = (4 + (14 if 150 < i < 200 else 0)) << 20
                kept.saw({"log_bytes": log, "events_ring_bytes": 1 << 20})
                other.add(i * 10.0, kept.beyond(15 + kept.peak + leak * i))
            self.assertEqual((kept.now, kept.peak), (5.0, 19.0))
            return other.grew()
        self.assertIsNone(resident(0))
        self.assertIn("grew", resident(0.05))

    def test_a_slower_machine(self):
        def table(machine):
            return growth.table({growth.MACHINE: {"p50": self.series("p50", machine)},
                                 "latency flock": {"p99": self.series("p99", lambda i: 20 * 1.01 ** i)}})[1]
        self.assertEqual(len(table(lambda i: 1.0)), 1)
        self.assertEqual(table(lambda i: 1.0 + i / 40), [])

    def test_of_this_process(self):
        before = growth.of_process(os.getpid())
        with open("/dev/null"):
            self.assertEqual(growth.of_process(os.getpid())["fds"], before["fds"] + 1)
        self.assertGreater(before["rss"], 1)
        with tempfile.TemporaryDirectory() as directory:
            self.assertGreater(growth.of_machine(os.path.join(directory, "speed")), 0)
        self.assertIsNone(growth.of_process(1 << 30))

class Leaking:
    """A process that keeps more with each line that it is sent; and, as a node, more on its disk."""

    CODE = """
import os, sys, threading
kept = []
for line in sys.stdin:
    if line == "leak\\n":
        kept.append((b"x" * (1 << 20), os.dup(0), threading.Thread(target=threading.Event().wait, daemon=True)))
        kept[-1][2].start()
    print(flush=True)
"""

    def __init__(self, directory):
        self.id = self.name = 1
        self.data = directory
        self.popen = subprocess.Popen([sys.executable, "-c", self.CODE], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        self.process = self.popen

    def status(self, _timeout):
        return {"metrics": {"log_bytes": 1 << 20, "events_ring_bytes": 1 << 20}}

    def step(self, what):
        self.popen.stdin.write(what + "\n")
        self.popen.stdin.flush()
        self.popen.stdout.readline()
        if what == "leak":
            with open(os.path.join(self.data, "log"), "ab") as f:
                os.posix_fallocate(f.fileno(), f.tell(), 4 << 20)

    def end(self):
        self.popen.kill()
        self.popen.communicate()


class SoakSampler(unittest.TestCase):
    """tests/soak looks at a real process."""

    def grown(self, what):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "soak")
        soak = runpy.run_path(path)
        with tempfile.TemporaryDirectory() as directory:
            node = Leaking(directory)
            try:
                r = SimpleNamespace(t=SimpleNamespace(directory=directory), gateways=[],
                                    c=SimpleNamespace(nodes={1: node}, mounts={"a": node}))
                sampler = soak["Sampler"](r, 0, None)
                for _ in range(45):
                    node.step(what)
                    sampler.tick()
                return growth.table(sampler.series)[1]
            finally:
                node.end()

    def test_what_leaks_is_told(self):
        said = "\n".join(self.grown("leak"))
        for who, what in (("node 1", "resident without"), ("node 1", "descriptors"), ("node 1", "threads"),
                          ("node 1", "disk"), ("mount 1", "resident without"), ("mount 1", "threads")):
            self.assertIn(f"{who}: {what}", said)

    def test_what_does_not_leak_is_not(self):
        self.assertEqual(self.grown("rest"), [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--compare", type=int, default=N_COMPARE)
    known, rest = parser.parse_known_args()
    N_COMPARE = known.compare
    unittest.main(argv=[sys.argv[0], *rest])
