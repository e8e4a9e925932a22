#!/usr/bin/python3
"""holdfast run: locks held while a command runs, on two mounts of three nodes."""
# seconds: 60
# sanitized: no
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import Failed, boot_ns, check, equal, run_case, wait_for  # noqa: E402
from proxy import Relay  # noqa: E402

SECONDS = 30  # Patience; nothing here is measured.

# Says what it is told, and goes on; ends by "end" on its input.
LISTENER = r"""
import os, signal, sys, time
for name in ("TERM", "INT", "HUP", "USR1", "USR2", "QUIT"):
    signal.signal(getattr(signal, "SIG" + name),
                  lambda n, _: print(signal.Signals(n).name, time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True))
print("ready", os.getpid(), os.environ["HOLDFAST_TOKEN"], flush=True)
while True:
    line = sys.stdin.readline()
    if line in ("end\n", ""):
        sys.exit(7)
"""

# Locks, tells when, and goes.
TAKER = r"""
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print(time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True)
"""

# Notes its begin and its end in a file.
WORKER = r"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.write(fd, b"+")
time.sleep(0.15)
os.write(fd, b"-")
"""


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


class Bench:
    def __init__(self, t):
        self.t = t
        self.relay = Relay(["cut-off", "well-off"])
        self.cluster = t.cluster(3)
        for node in self.cluster.nodes.values():
            behind = t.free_port("127.0.0.1")
            self.relay.listen(node.client_port, behind)
            node.listen = ("--listen", f"{node.raft_address},127.0.0.1:{behind}")
            node.start(options=node.listen)
        self.cluster.wait_leader()
        self.a = self.cluster.mount("a", options="ttl=5s,timeout=20s,host=well-off")
        self.b = self.cluster.mount("b", options="ttl=5s,timeout=20s,host=well-off")

    def argv(self, *words, host=None):
        argv = [self.t.program("holdfast"), "run", *map(str, words)]
        if host:  # The host that its session speaks for: the relay knows it by that.
            return ["unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "sh", *argv]
        return argv

    def start(self, *words, host=None, **options):
        # In a group of its own, as a shell does it: in an orphaned one SIGTSTP stops nobody.
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                   "process_group": 0, **options}
        return subprocess.Popen(self.argv(*words, host=host), text=True, **options)

    def run(self, *words, cwd=None, **options):
        # Not Popen's cwd: while vfork() enters a mount, the relay, a thread of this process, stands still.
        argv = (["env", "-C", cwd] if cwd else []) + self.argv(*words)
        return subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False,
                              stdin=subprocess.DEVNULL, **options)

    def code(self, wanted, *words, **options):
        done = self.run(*words, **options)
        equal(done.returncode, wanted, f"run {' '.join(map(str, words))}: {done.stderr}")
        return done

    def listener(self, *words, **options):
        """A command that holds; waits until it runs."""
        p = self.start(*words, "--", sys.executable, "-c", LISTENER, **options)
        line = p.stdout.readline().split()
        if len(line) != 3:
            raise Failed(f"the command of run did not start: {p.stderr.read()}")
        p.command, p.token = int(line[1]), int(line[2])
        return p

    def end(self, p, code=7):
        p.stdin.close()
        equal(p.wait(SECONDS), code, "exit code of run")

    def show(self, name):
        done = self.cluster.cli("show", name, "--json", ok=False)
        if done.returncode == 66:
            return {"holds": [], "n_waiters": 0}
        equal(done.returncode, 0, f"show {name}: {done.stderr}")
        return json.loads(done.stdout)

    def wait_waiters(self, name, n):
        wait_for(f"{n} to wait for {name}", SECONDS, lambda: self.show(name)["n_waiters"] == n)

    def wait_free(self, name):
        wait_for(f"{name} to be free", SECONDS,
                 lambda: (self.show(name)["holds"], self.show(name)["n_waiters"]) == ([], 0))


def flock_free(mount, name):
    return subprocess.run(["flock", "-n", mount.path(name), "true"], timeout=SECONDS, check=False).returncode == 0


def codes(bench):
    """What the command ends with, and what it finds in its environment."""
    path = bench.a.path("codes")
    for n in (0, 1, 7, 255):
        bench.code(n, path, "--", "sh", "-c", f"exit {n}")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        bench.code(128 + number, path, "--", "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$")
    check("No such file" in bench.code(127, path, "--", "/no/such/program").stderr, "no program, and nothing said")
    bench.code(127, path, "--", "no-such-program")
    bench.code(126, path, "--", "/etc/passwd")
    bench.code(126, path, "--", "/")
    bench.wait_free("codes")
    done = bench.code(0, "--shared", path, bench.a.path("second"), "--", "sh", "-c",
                      f"echo $HOLDFAST_TOKEN; echo $HOLDFAST_TOKENS; grep ^token= {path} {bench.b.path('second')}")
    lines = done.stdout.split("\n")
    first, second = lines[1].split()
    equal(lines[0], first, "HOLDFAST_TOKEN")
    check(lines[2].endswith(f"token={first}") and lines[3].endswith(f"token={second}"), f"tokens: {lines}")
    # The rest of the world is the command's: its input, its arguments, what follows a second "--".
    done = subprocess.run(bench.argv(path, "--", "sh", "-c", 'cat; echo "$#:$1:$2"', "x", "--ttl", "--"), input="in",
                          capture_output=True, text=True, timeout=SECONDS, check=False)
    equal(done.stdout, "in2:--ttl:--\n", "what the command was given")
    # It starts with the signals as run found them.
    done = subprocess.run(["sh", "-c", 'trap "" HUP USR1; exec "$@"', "sh",
                           *bench.argv(path, "--", "grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")],
                          capture_output=True, text=True, timeout=SECONDS, check=False)
    masks = dict(line.split(":\t") for line in done.stdout.splitlines())
    equal(int(masks["SigBlk"], 16), 0, "signals blocked in the command")
    wanted = 1 << signal.SIGHUP - 1 | 1 << signal.SIGUSR1 - 1
    plain = int(subprocess.run(["grep", "^SigIgn", "/proc/self/status"], capture_output=True, text=True,
                               check=True, timeout=SECONDS).stdout.split()[1], 16)
    equal(int(masks["SigIgn"], 16), plain | wanted, "signals ignored in the command")


def usage(bench):
    path = bench.a.path("usage")
    for words in ([path], ["--", "true"], [path, "--"], ["--shared", "--limit", "2", path, "--", "true"],
                  ["--limit", "0", path, "--", "true"], ["--limit", "65536", path, "--", "true"],
                  ["--n", "x", path, "--", "true"], ["--kill-after-loss", "NOPE", path, "--", "true"],
                  ["--wait", "-1", path, "--", "true"], ["--json", path, "--", "true"],
                  ["--cluster", "127.0.0.1:1", path, "--", "true"], ["--owner", "x", path, "--", "true"],
                  [path, path, "--", "true"], [bench.a.dir, "--", "true"], [path + "/", "--", "true"],
                  [bench.a.path(".holdfast"), "--", "true"], ["", "--", "true"],
                  [path, bench.b.path("usage"), "--", "true"]):
        bench.code(2, *words)


def places(bench):
    """Only files on a mount, however they are called."""
    t = bench.t
    where = os.path.join(t.directory, "elsewhere")
    os.mkdir(where)
    for word in (os.path.join(where, "lock"), "/tmp/no/such/directory/lock", "lock", "/lock", "../lock"):
        done = bench.code(78, word, "--", "touch", os.path.join(where, "ran"), cwd=where)
        check("not on a Holdfast mount" in done.stderr, f"{word}: {done.stderr}")
    bench.code(78, bench.a.path("x"), os.path.join(where, "y"), "--", "touch", os.path.join(where, "ran"))
    check(not os.path.exists(os.path.join(where, "ran")), "a command ran without its locks")

    os.mkdir(bench.a.path("dir"))
    os.symlink(bench.a.path("dir"), os.path.join(where, "link"))
    os.symlink("link/job", os.path.join(where, "joblink"))
    os.symlink("loop", os.path.join(where, "loop"))
    bench.code(78, os.path.join(where, "loop"), "--", "true")
    held = bench.listener(bench.b.path("dir/job"))
    for word, here in ((bench.a.path("dir/job"), "/"), ("job", bench.a.path("dir")), ("./dir//job", bench.a.dir),
                       ("../dir/job", bench.a.path("dir")), (os.path.join(where, "link/job"), "/"),
                       ("link/../dir/job", where), ("joblink", where), (os.path.join(where, "joblink"), "/")):
        bench.code(75, "--wait", "0", word, "--", "true", cwd=here)
    bench.end(held)
    bench.code(1, bench.a.path("none/job"), "--", "true")
    bench.code(1, bench.a.path("dir"), "--", "true")
    os.chmod(bench.a.path("dir"), 0o755)
    above = t.directory
    while above != "/":  # Let others come by.
        if not os.stat(above).st_mode & 0o001:
            os.chmod(above, os.stat(above).st_mode | 0o011)
        above = os.path.dirname(above)
    bench.code(77, bench.a.path("dir/job"), "--", "true", user=65534, group=65534, extra_groups=[])


def exclusion(bench):
    a, b = bench.a.path("ex"), bench.b.path("ex")
    held = bench.listener(a)
    equal([bench.a.token("ex"), bench.b.token("ex")], [held.token] * 2, "tokens seen through the mounts")
    check(not flock_free(bench.a, "ex") and not flock_free(bench.b, "ex"), "flock of what run holds")
    check(bench.b.try_acquire("ex") is None, "O_EXCL of what run holds")
    for path in (a, b):
        for wait in ("0", "100ms"):
            done = bench.code(75, "--wait", wait, path, "--", "echo", "ran")
            equal(done.stdout, "", "output of a command that may not run")
    bench.code(75, "--wait", "0", "--shared", b, "--", "true")
    bench.end(held)
    bench.wait_free("ex")
    for mount in (bench.a, bench.b):
        fd = os.open(mount.path("ex"), os.O_CREAT | os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        bench.code(75, "--wait", "0", a, "--", "true")
        bench.code(75, "--wait", "0", b, "--", "true")
        fcntl.flock(fd, fcntl.LOCK_SH)
        bench.code(0, "--wait", "0", "--shared", b, "--", "true")
        os.close(fd)
    shared = [bench.listener("--shared", p) for p in (a, b, a)]
    equal(bench.b.read("ex")["holders"], "3", "holders of a shared lock")
    equal([h["mode"] for h in bench.show("ex")["holds"]], ["shared"] * 3, "their modes")
    bench.code(75, "--wait", "0", b, "--", "true")
    for p in shared:
        bench.end(p)
    bench.code(0, "--wait", "0", b, "--", "true")


def queue(bench):
    """First come, first served, together with those who use flock."""
    held = bench.listener(bench.a.path("queue"))
    order = os.path.join(bench.t.directory, "order")
    open(order, "w").close()
    waiting = []
    for i, mount in enumerate((bench.b, bench.a, bench.a, bench.b)):
        command = ["sh", "-c", f"echo {i} >>{order}"]
        path = mount.path("queue")
        if i % 2 == 0:
            waiting.append(subprocess.Popen(["flock", path, *command]))
        else:
            waiting.append(bench.start(path, "--", *command))
        bench.wait_waiters("queue", i + 1)
    bench.end(held)
    for p in waiting:
        equal(p.wait(SECONDS), 0, "exit code of a waiter")
    with open(order) as f:
        equal(f.read().split(), ["0", "1", "2", "3"], "the order of those who waited")


def several(bench):
    """All or none."""
    a, b, c = "multi/a", "multi/b", "multi/c"
    os.mkdir(bench.a.path("multi"))
    paths = [bench.a.path(n) for n in (a, b, c)]
    held = bench.listener(bench.b.path(b))
    bench.code(75, "--wait", "0", *paths, "--", "true")
    equal([len(bench.show(n)["holds"]) for n in (a, b, c)], [0, 1, 0], "holds after a refusal")
    waiting = bench.start(*paths, "--", sys.executable, "-c", LISTENER)
    bench.wait_waiters(c, 1)
    equal(bench.show(a)["holds"], [], "holds of one that waits for another lock too")
    bench.end(held)
    equal(waiting.stdout.readline().split()[0], "ready", "the command with three locks")
    equal([len(bench.show(n)["holds"]) for n in (a, b, c)], [1, 1, 1], "holds of all three")
    for n in (a, b, c):
        check(not flock_free(bench.b, n), f"flock of {n}")
    bench.end(waiting)
    for n in (a, b, c):
        bench.wait_free(n)


def semaphore(bench):
    log = os.path.join(bench.t.directory, "semaphore")
    open(log, "w").close()
    running = [bench.start("--n", "3", mount.path("sem"), "--", sys.executable, "-c", WORKER, log)
               for mount in (bench.a, bench.b) * 5]
    for p in running:
        equal(p.wait(SECONDS), 0, f"exit code of a worker: {p.stderr.read()}")
    now = most = 0
    with open(log) as f:
        text = f.read()
    for c in text:
        now += 1 if c == "+" else -1
        most = max(most, now)
    equal((text.count("+"), text.count("-"), now), (10, 10, 0), "begins and ends")
    equal(most, 3, "commands that ran at once")

    held = [bench.listener("--limit", "3", mount.path("sem")) for mount in (bench.a, bench.b, bench.b)]
    for mount in (bench.a, bench.b):
        with open(mount.path("sem")) as f:
            text = f.read()
        blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in text.split("\n\n")]
        equal(len(blocks), 3, "blocks of a semaphore's file")
        equal({(x["mode"], x["limit"], x["holders"]) for x in blocks}, {("semaphore", "3", "3")}, "what they say")
        equal({int(x["token"]) for x in blocks}, {p.token for p in held}, "tokens in the file")
    shown = bench.show("sem")
    equal([(h["mode"], h["limit"]) for h in shown["holds"]], [("semaphore", 3)] * 3, "show --json")
    equal(bench.cluster.cli("show", "sem").stdout.count("a slot of 3"), 3, "show")
    bench.code(75, "--wait", "0", "--n", "3", bench.a.path("sem"), "--", "true")
    bench.code(75, "--wait", "0", "--n", "2", bench.a.path("sem"), "--", "true")
    bench.code(75, "--wait", "0", "--shared", bench.a.path("sem"), "--", "true")
    check(not flock_free(bench.a, "sem"), "flock of a semaphore")
    # The command line's lease has its slot too.
    equal(bench.cluster.cli("acquire", "sem", "--limit", "3", ok=False).returncode, 1, "acquire --limit of a full one")
    bench.end(held.pop())
    token = int(bench.cluster.cli("acquire", "sem", "--limit", "3", "--owner", "me").stdout)
    equal(bench.cluster.cli("acquire", "sem", "--limit", "3", ok=False).returncode, 1, "acquire --limit, full again")
    bench.cluster.cli("release", "sem", "--token", token)
    bench.code(0, "--wait", "0", "--n", "3", bench.a.path("sem"), "--", "true")
    waiting = bench.start("--n", "2", bench.a.path("sem"), "--", "true")
    bench.wait_waiters("sem", 1)
    bench.code(75, "--wait", "0", "--n", "3", bench.b.path("sem"), "--", "true")  # Behind the one who waits.
    for p in held:
        bench.end(p)
    equal(waiting.wait(SECONDS), 0, "the one who waited")
    bench.wait_free("sem")


def signals(bench):
    """What is sent to run reaches the command, once."""
    p = bench.listener(bench.a.path("signals"))
    for name in ("TERM", "INT", "HUP", "USR1", "USR2", "QUIT"):
        p.send_signal(getattr(signal, "SIG" + name))
        equal(p.stdout.readline().split()[0], "SIG" + name, "what the command was told")
    p.send_signal(signal.SIGTSTP)
    wait_for("both to stop", SECONDS, lambda: state(p.command) == "T" and state(p.pid) == "T")
    p.send_signal(signal.SIGCONT)
    wait_for("both to go on", SECONDS, lambda: state(p.command) != "T" and state(p.pid) != "T")
    os.kill(p.command, signal.SIGSTOP)  # Not for the terminal's sake: the lock is kept.
    wait_for("the command to stop", SECONDS, lambda: state(p.command) == "T")
    time.sleep(0.2)
    check(state(p.pid) != "T", "run stopped with a command that was stopped by SIGSTOP")
    p.send_signal(signal.SIGCONT)
    wait_for("the command to go on", SECONDS, lambda: state(p.command) != "T")
    check(not flock_free(bench.b, "signals"), "the lock after all the signals")
    p.stdin.write("end\n")
    p.stdin.flush()
    equal(p.wait(SECONDS), 7, "exit code")
    equal(p.stdout.read(), "", "what else the command was told")
    equal(p.stderr.read(), "", "what run said")
    # The command's death frees the lock though its children live on.
    done = bench.run(bench.a.path("signals"), "--", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; exit 3")
    equal(done.returncode, 3, "exit code")
    check(flock_free(bench.b, "signals"), "free after the command's end")
    os.kill(int(done.stdout), signal.SIGKILL)


def waiting(bench):
    """Who is interrupted while it waits leaves nothing behind."""
    held = bench.listener(bench.a.path("waiting"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        p = bench.start(bench.b.path("waiting"), bench.b.path("other"), "--", "true")
        bench.wait_waiters("waiting", 1)
        p.send_signal(number)
        equal(p.wait(SECONDS), 128 + number, "exit code of one that was interrupted")
        equal(bench.show("waiting")["n_waiters"], 0, "waiters")
        bench.wait_free("other")
    # Stopped for so long that the session is gone: it stands in line anew.
    p = bench.start("--ttl", "500ms", bench.b.path("waiting"), "--", "true")
    bench.wait_waiters("waiting", 1)
    p.send_signal(signal.SIGTSTP)
    bench.wait_waiters("waiting", 0)
    p.send_signal(signal.SIGCONT)
    bench.wait_waiters("waiting", 1)
    bench.end(held)
    equal(p.wait(SECONDS), 0, "exit code")


def killed(bench):
    """kill -9 of run: the command does not go on, and the next one gets the lock."""
    p = bench.listener("--ttl", "1s", bench.a.path("killed"))
    taker = subprocess.Popen([sys.executable, "-c", TAKER, bench.b.path("killed")], stdout=subprocess.PIPE, text=True)
    bench.wait_waiters("killed", 1)
    p.kill()
    wait_for("the command's end", SECONDS, lambda: state(p.command) in ("gone", "Z"))
    gone = boot_ns()
    taken = int(taker.stdout.readline())
    check(taken > gone, "the lock was granted while the command lived")
    equal(taker.wait(SECONDS), 0, "the other")
    p.wait(SECONDS)


def lost(bench):
    """Cut off: the command and its children are told before another is granted."""
    margins = []
    for round_ in range(3):
        p = bench.listener("--ttl", "1s", bench.a.path("lost"), host="cut-off")
        taker = subprocess.Popen([sys.executable, "-c", TAKER, bench.b.path("lost")], stdout=subprocess.PIPE,
                                 text=True)
        bench.wait_waiters("lost", 1)
        bench.relay.cut("cut-off")
        name, when = p.stdout.readline().split()
        equal(name, "SIGTERM", "what the command was told")
        margins.append((int(taker.stdout.readline()) - int(when)) / 1e6)
        bench.relay.heal("cut-off")
        bench.end(p, 79)
        check("lost" in p.stderr.read(), "what run said")
        equal(taker.wait(SECONDS), 0, "the other")
    print("told -> granted to another: " + ", ".join(f"{m:.0f}" for m in margins) + " ms")
    check(min(margins) > 0, f"granted to another before the command was told: {margins}")
    # By another signal; and all of a tree, though the parent goes first.
    script = "trap '' TERM; sh -c 'sleep 1000 & echo $!; wait' & wait"
    p = bench.start("--ttl", "1s", "--kill-after-loss", "KILL", bench.a.path("lost"), "--", "sh", "-c", script,
                    host="cut-off")
    grandchild = int(p.stdout.readline())
    bench.relay.cut("cut-off")
    equal(p.wait(SECONDS), 79, "exit code")
    bench.relay.heal("cut-off")
    wait_for("the grandchild's end", SECONDS, lambda: state(grandchild) in ("gone", "Z"))
    bench.wait_free("lost")


def stopped(bench):
    """Run itself was stopped beyond its session's end."""
    p = bench.listener("--ttl", "500ms", bench.a.path("stopped"))
    taker = subprocess.Popen([sys.executable, "-c", TAKER, bench.b.path("stopped")], stdout=subprocess.PIPE, text=True)
    bench.wait_waiters("stopped", 1)
    p.send_signal(signal.SIGTSTP)
    wait_for("both to stop", SECONDS, lambda: state(p.command) == "T" and state(p.pid) == "T")
    check(int(taker.stdout.readline()) > 0, "the other's grant")
    p.send_signal(signal.SIGCONT)
    equal(p.stdout.readline().split()[0], "SIGTERM", "the first that the command hears")
    bench.end(p, 79)
    equal(taker.wait(SECONDS), 0, "the other")


def broken(bench):
    p = bench.listener(bench.a.path("broken"), bench.a.path("whole"))
    bench.cluster.cli("break", "broken", "--token", p.token)
    equal(p.stdout.readline().split()[0], "SIGTERM", "what the command was told")
    bench.end(p, 79)
    check("operator" in p.stderr.read(), "what run said")
    bench.wait_free("whole")


def away(bench):
    """No answer from the cluster: no command."""
    bench.relay.cut("cut-off")
    p = bench.start("--timeout", "1s", bench.a.path("away"), "--", "echo", "ran", host="cut-off")
    equal(p.wait(SECONDS), 69, "exit code without a cluster")
    equal(p.stdout.read(), "", "output of a command that may not run")
    check("answer" in p.stderr.read(), "what run said")
    bench.relay.heal("cut-off")


def leader_killed(bench):
    """The leader dies while the lock is held, and again just before it is given back."""
    p = bench.listener(bench.a.path("leader"))
    leader = bench.cluster.wait_leader()
    leader.kill()
    bench.cluster.wait_leader()
    leader.start(options=leader.listen)
    leader.wait_ready()
    leader = bench.cluster.wait_leader()
    leader.kill()
    bench.end(p)
    bench.code(0, "--wait", "30s", bench.b.path("leader"), "--", "true")
    leader.start(options=leader.listen)
    leader.wait_ready()


class Terminal:
    """A shell with job control on a terminal of its own."""

    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "$ "
            os.environ["TERM"] = "dumb"
            os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
        self.text = self.before = ""
        self.n = 1000

    def send(self, text):
        os.write(self.fd, text.encode())

    def expect(self, pattern, ask=""):
        """Wait for it; `ask` is typed again and again meanwhile."""
        end = time.monotonic() + SECONDS
        while True:
            found = re.search(pattern, self.text)
            if found:
                self.before, self.text = self.text[:found.start()], self.text[found.end():]
                return found
            self.send(ask)
            if time.monotonic() > end:
                raise Failed(f"the terminal did not say {pattern!r}: {self.text[-500:]!r}")
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    raise Failed(f"the shell is gone: {self.text[-500:]!r}") from None

    def prompt(self):
        """Wait until the shell itself listens."""
        self.n += 1
        self.send(f"echo here-$(({self.n}+0))\n")
        self.expect(f"here-{self.n}")

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def job_control(bench):
    """Ctrl-C, Ctrl-Z, fg, bg, and the terminal as the command's input, as without run."""
    run = " ".join(bench.argv())
    path = bench.a.path("tty")
    term = Terminal()
    try:
        term.prompt()
        # (exec: a shell that is stopped between its vfork() and that child's exec is stuck, run or no run.)
        term.send(f"{run} {path} -- sh -c 'echo pid-$$; exec sleep 1000'\n")
        term.expect(r"pid-(\d+)")
        term.send("\x1a")
        term.expect("Stopped")
        check(not flock_free(bench.b, "tty"), "the lock while its command is stopped")
        term.send("fg\n")
        time.sleep(0.3)
        term.send("\x03")
        term.send("echo code=$?\n")
        term.expect("code=130")
        check(flock_free(bench.b, "tty"), "the lock after Ctrl-C")
        # Once, not twice.
        script = os.path.join(bench.t.directory, "trap.sh")
        with open(script, "w") as f:
            f.write("trap 'echo got-int' INT\necho ready-$((40+2))\nwhile read line; do :; done\necho fin-$((1+1))\n")
        term.send(f"{run} {path} -- bash {script}\n")
        term.expect("ready-42")
        term.send("\x03")
        term.expect("got-int")
        term.send("\x04")
        term.expect("fin-2")
        check("got-int" not in term.before, "Ctrl-C came twice")
        term.prompt()
        term.send(f"{run} {path} -- cat\n")
        time.sleep(0.5)
        term.send("typed\n")
        term.expect(r"typed\r\ntyped\r\n")
        term.send("\x04")
        term.prompt()
        # In the background it may not read; in a pipeline it is one of several.
        term.send(f"{run} {path} -- cat &\n")
        term.expect("Stopped", "jobs\n")
        term.prompt()
        term.send("fg\n")
        term.expect("-- cat")
        time.sleep(0.3)
        term.send("more\n")
        term.expect(r"more\r\nmore\r\n")
        term.send("\x04")
        term.prompt()
        term.send(f"{run} {path} -- sh -c 'echo piped-$((1+1)); exec sleep 1000' | cat\n")
        term.expect("piped-2")
        term.send("\x1a")
        term.expect("Stopped")
        term.send("bg\n")
        term.prompt()
        term.send("kill %1; wait; echo waited-$((1+1))\n")
        term.expect("waited-2")
        check(flock_free(bench.b, "tty"), "the lock after the pipeline's end")
        # Who waits can be stopped and interrupted.
        held = bench.listener(bench.b.path("tty"))
        term.send(f"{run} {path} -- true\n")
        bench.wait_waiters("tty", 1)
        term.send("\x1a")
        term.expect("Stopped")
        term.send("fg\n")
        time.sleep(0.3)
        term.send("\x03")
        term.send("echo code=$?\n")
        term.expect("code=130")
        bench.wait_waiters("tty", 0)
        bench.end(held)
    finally:
        term.close()


def nothing_left(bench):
    """No hold, no waiter, and no session but the mounts'."""
    def left():
        status = bench.cluster.wait_leader().status()
        return status and (status["holds"], status["waiters"], status["sessions"]) == (0, 0, 2)

    wait_for("holds, waiters and sessions to be gone", SECONDS, left)


def main(t):
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # nohup and background jobs ignore them.
    t.need_root()
    t.need_fuse()
    bench = Bench(t)
    for part in (codes, usage, places, exclusion, queue, several, semaphore, signals, waiting, killed, lost, stopped,
                 broken, away, job_control, nothing_left, leader_killed):
        part(bench)


run_case(main)
