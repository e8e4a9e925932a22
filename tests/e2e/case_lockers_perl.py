#!/usr/bin/python3
"""Perl's flock, and its fcntl, on two mounts."""
# seconds: 20
# sanitized: no
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import run_case  # noqa: E402
from lockers import Locker, death, exclusion, handoff, nothing_left, session_runs_out  # noqa: E402

SCRIPT = r"""
use strict;
use warnings;
use Fcntl qw(:flock F_SETLK F_SETLKW F_WRLCK F_UNLCK SEEK_SET);
$| = 1;
my ($kind, $do, $path, $count, $n) = @ARGV;
open(my $f, '>>', $path) or die "$path: $!";
sub take {
    my ($wait) = @_;
    return flock($f, $wait ? LOCK_EX : LOCK_EX | LOCK_NB) if $kind eq 'flock';
    my $whole = pack('s s x4 q q l x4', F_WRLCK, SEEK_SET, 0, 0, 0); # struct flock of Linux, 64 bits.
    return fcntl($f, $wait ? F_SETLKW : F_SETLK, $whole);
}
sub leave {
    return flock($f, LOCK_UN) if $kind eq 'flock';
    my $whole = pack('s s x4 q q l x4', F_UNLCK, SEEK_SET, 0, 0, 0);
    return fcntl($f, F_SETLK, $whole);
}
if ($do eq 'loop') {
    for (1 .. $n) {
        take(1) or die "lock: $!";
        open(my $c, '<', $count) or die $!;
        my $was = <$c>;
        close $c;
        open($c, '>', $count) or die $!;
        print $c $was + 1;
        close $c or die $!;
        leave() or die "unlock: $!";
    }
} elsif ($do eq 'hold') {
    take(1) or die "lock: $!";
    print "locked\n";
    my $line = <STDIN>;
    close $f;
} else {
    exit 0 if take(0);
    exit 77 if $!{EAGAIN};
    die "lock: $!";
}
"""


class Perl(Locker):
    refused = 77

    def __init__(self, kind):
        self.kind = kind
        self.name = "perl-" + kind

    def run(self, *arguments):
        return ["perl", "-e", SCRIPT, self.kind, *map(str, arguments)]

    def loop(self, path, count, n):
        return self.run("loop", path, count, n)

    def hold(self, path):
        return self.run("hold", path)

    def attempt(self, path):
        return self.run("attempt", path)


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options="timeout=20s,session_ttl=2s,host=host-a")
    b = c.mount("b", options="timeout=20s,session_ttl=2s,host=host-b")
    for kind in ("flock", "fcntl"):
        exclusion(Perl(kind), (a, b), 3, 150)
        handoff(Perl(kind), a, b)
        death(Perl(kind), a, b)
    nothing_left(c)
    session_runs_out(Perl("flock"), c, a, b)


run_case(main)
