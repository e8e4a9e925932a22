"""Leases end when their time is over, and not before; the holder is told first."""
import errno
import os
import subprocess
import time

from mountlib import Mount, acquire, fails, say, show, take

OPTIONS = "ttl=1s"
TTL = 1.0


def watch_end(p, began, ended_by):
    """Poll until it is gone.  Return: (last moment seen, first moment missed), from `began`."""
    seen = None
    while True:
        before = time.monotonic()
        try:
            os.stat(p)
        except FileNotFoundError:
            return seen - began, time.monotonic() - began
        seen = before
        assert before - began < ended_by


def test_not_before_and_not_much_after(m):
    worst = 0.0
    for i in range(3):
        p = m.path("end-%d" % i)
        before = time.monotonic()
        take(p)
        after = time.monotonic()
        _, missed = watch_end(p, before, 10)
        assert missed >= TTL, "ended %.3f s after it was asked for" % missed
        worst = max(worst, missed - (after - before) - TTL)
    print("a lease of %.0f ms ended at most %.1f ms late" % (TTL * 1000, worst * 1000))
    assert worst < 5  # It ends at all; how late is for the benchmarks.


def test_renewed_counts_from_then(m):
    p = m.path("renewed")
    take(p)
    time.sleep(0.6)
    before = time.monotonic()
    os.utime(p)
    _, missed = watch_end(p, before, 10)
    assert missed >= TTL


def test_holder_knows_first(m):
    """ESTALE on the descriptor comes before anybody else can be granted."""
    for i in range(3):
        p = m.path("first-%d" % i)
        fd = acquire(p)
        other = subprocess.Popen(["dash", "-c", 'until ( set -C; : > "$0" ) 2>/dev/null; do :; done; '
                                  'cat /proc/uptime >/dev/null; date +%s%N', p], stdout=subprocess.PIPE)
        while True:
            try:
                os.pread(fd, 1, 0)
                last = time.time_ns()
            except OSError as e:
                assert e.errno == errno.ESTALE, e
                break
        granted = int(other.communicate()[0])
        assert last < granted
        for call in (lambda: os.pread(fd, 1, 0), lambda: os.write(fd, b"renew"), lambda: os.fsync(fd)):
            with fails("ESTALE"):
                call()
        assert os.fstat(fd).st_nlink == 0
        os.close(fd)


def test_given_up_before_the_cluster_did(_m):
    """Between our own deadline and the cluster's it is a lost lease, not somebody else's."""
    with Mount("ttl=3s") as m:
        p = m.path("x")
        take(p)
        time.sleep(2.98)  # 28 ms of allowance for drift.
        with fails("ESTALE", "ENOENT"):  # ENOENT: open() found nothing any more.
            say(p, "renew")


def test_remaining_goes_down(m):
    p = m.path("remaining")
    take(p)
    values = []
    try:
        while (text := show(p)):
            values.append(int(text["remaining_ms"]))
    except FileNotFoundError:
        pass
    assert values[0] <= 1000 and values == sorted(values, reverse=True) and values[-1] < 100
