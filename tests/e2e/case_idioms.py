#!/usr/bin/python3
"""mkdir NAME.lock, symlink, link and rename on two mounts of a cluster of three."""
# seconds: 40
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, expect_errno, run_case, wait_for  # noqa: E402

TTL_S = 2

# A process that does what it is told, one line of Python at a time, and says how that went.
AGENT = """
import errno, os, sys
fd = None
for line in sys.stdin:
    try:
        exec(line)
        print("ok", flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
"""


class Agent:
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1)

    def start(self, line):
        self.process.stdin.write(line + "\n")

    def answer(self):
        return self.process.stdout.readline().strip()

    def run(self, line, *wanted):
        self.start(line)
        got = self.answer()
        check(got in (wanted or ("ok",)), f"{line}: {got}, not {wanted or 'ok'}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def take_link(path, held):
    """The dot-lock idiom, as procmail has it."""
    tmp = f"{path}.{os.getpid()}"
    os.close(os.open(tmp, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    try:
        os.link(tmp, path)
        equal(os.stat(tmp).st_nlink, 2, "links of the temporary file")
        check(not held, f"{path} was linked though it is held")
    finally:
        os.unlink(tmp)


TAKE = {
    "mkdir": (lambda p: os.mkdir(p), os.rmdir),
    "symlink": (lambda p: os.symlink("me@here.1:2", p), os.unlink),
    "link": (lambda p: take_link(p, False), os.unlink),
    "excl": (lambda p: os.close(os.open(p, os.O_CREAT | os.O_EXCL)), os.unlink),
}


def taken(mount, name, habits=tuple(TAKE)):
    for habit in habits:
        expect_errno(errno.EEXIST, lambda habit=habit: TAKE[habit][0](mount.path(name)), f"{habit} of a held lock")


def exclude(a, b):
    """Whichever habit took it, no habit gets it on the other mount, nor may drop or touch it there."""
    for habit, (take, drop) in TAKE.items():
        name = "x.lock"
        take(a.path(name))
        taken(b, name)
        taken(a, name)
        st, other = os.lstat(a.path(name)), os.lstat(b.path(name))
        equal((st.st_ino, st.st_mode, st.st_nlink, st.st_size), (other.st_ino, other.st_mode, other.st_nlink,
                                                                 other.st_size), f"{habit}: what both mounts show")
        mine = subprocess.run([sys.executable, "-c", f"import os; os.{drop.__name__}({b.path(name)!r})"],
                              capture_output=True, text=True, check=False)
        check("PermissionError" in mine.stderr, f"{habit}: another host's drop: {mine.stderr}")
        expect_errno(errno.EPERM, lambda: os.utime(b.path(name), follow_symlinks=False), f"{habit}: another's touch")
        expect_errno(errno.EPERM, lambda: os.rename(b.path(name), b.path("y")), f"{habit}: another's rename")
        drop(a.path(name))
        expect_errno(errno.ENOENT, lambda: os.lstat(b.path(name)), f"{habit}: dropped on the other mount")
        take(b.path(name))
        taken(a, name)
        drop(b.path(name))


def times(a, b):
    """A time that was set on one mount is what the other shows; a renewal by touch is seen."""
    os.mkdir(a.path("t.lock"))
    first = os.stat(a.path("t.lock")).st_mtime_ns
    equal(os.stat(b.path("t.lock")).st_mtime_ns, first, "time of a new lock")
    for ns in (1700000000005000000, 1700000000004999876):
        os.utime(a.path("t.lock"), ns=(ns, ns))
        equal(os.stat(b.path("t.lock")).st_mtime_ns, ns, "time that was set on the other mount")
    for _ in range(5):
        before = os.stat(b.path("t.lock")).st_mtime_ns
        time.sleep(0.02)
        subprocess.run(["touch", a.path("t.lock")], check=True)
        check(os.stat(b.path("t.lock")).st_mtime_ns > before, "a touch is not seen on the other mount")
    os.rmdir(a.path("t.lock"))


def names(a, b):
    """Links and their count, the text of a symbolic link, on the other mount too."""
    os.symlink("emacs@host.99:1", a.path("s"))
    equal(os.readlink(b.path("s")), "emacs@host.99:1", "text on the other mount")
    os.unlink(a.path("s"))
    os.close(os.open(a.path("tmp"), os.O_CREAT | os.O_EXCL))
    os.link(a.path("tmp"), a.path("lock"))
    tmp, lock = os.stat(b.path("tmp")), os.stat(b.path("lock"))
    equal((tmp.st_ino, tmp.st_nlink, lock.st_nlink), (lock.st_ino, 2, 2), "one file on the other mount")
    os.unlink(a.path("tmp"))
    lock = os.stat(b.path("lock"))
    equal((tmp.st_ino, lock.st_nlink), (lock.st_ino, 1), "what is left on the other mount")
    os.rename(a.path("lock"), a.path("lock2"))
    expect_errno(errno.ENOENT, lambda: os.stat(b.path("lock")), "the old name on the other mount")
    equal(os.stat(b.path("lock2")).st_ino, lock.st_ino, "the file under its new name")
    expect_errno(errno.EEXIST, lambda: os.mkdir(b.path("lock2")), "mkdir of the new name")
    fd = b.acquire("lock")
    expect_errno(errno.EEXIST, lambda: os.rename(a.path("lock2"), a.path("lock")), "rename to a held name")
    expect_errno(errno.EEXIST, lambda: os.rename(b.path("lock"), b.path("lock2")), "rename to a held name")
    os.close(fd)
    os.unlink(b.path("lock"))
    os.unlink(a.path("lock2"))


def moved_elsewhere(a, c):
    """A second mount of the same host renames: the first one's descriptors and renewals follow."""
    fd = a.acquire("here")
    os.write(fd, b"renew 500ms\n")
    os.write(fd, b"keep\n")
    for i in range(20):
        os.rename(c.path(f"here{i or ''}"), c.path(f"here{i + 1}"))
        os.write(fd, b"renew\n")
    time.sleep(1.2)  # Renewed under its last name.
    os.write(fd, b"renew\n")
    equal(os.fstat(fd).st_nlink, 1, "links of the renamed file")
    check(b"ttl_ms=500\n" in os.read(fd, 4096), "the report of the renamed file")
    taken(a, "here20", ("excl", "mkdir"))
    os.unlink(a.path("here20"))
    try:
        os.write(fd, b"renew\n")
        check(False, "renewed after the end")
    except OSError as e:
        equal(e.errno, errno.ESTALE, "errno after the end")
    os.close(fd)


def taken_away(c, a, b):
    """Somebody who knows the token renames what is locked by flock: that lock is lost, and no name stays held."""
    fd = os.open(a.path("f"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    expect_errno(errno.EBUSY, lambda: os.rename(a.path("f"), a.path("f2")), "rename of what is locked by flock")
    with c.wait_leader().connect() as client:
        client.open_session()
        equal(client.command("rename", [b"f", b"f2"], f8=b.token("f"))["code"], "ok", "a rename by token")

    def lost():
        try:
            os.fsync(fd)
            return False
        except OSError as e:
            return e.errno == errno.ESTALE

    wait_for("the holder to be told", 5, lost)
    for name in ("f", "f2"):
        wait_for(f"{name} to be free", 5, lambda name=name: free(b, name))
    os.close(fd)


def expiry(a, b):
    """A lease that is not renewed ends, and its holder can't drop or renew the next one's."""
    for habit, (take, drop) in TAKE.items():
        name = f"e-{habit}.lock"
        agent = Agent()
        agent.run({"mkdir": f"os.mkdir({a.path(name)!r})", "symlink": f"os.symlink('text', {a.path(name)!r})",
                   "excl": f"os.close(os.open({a.path(name)!r}, 194))",
                   "link": f"os.close(os.open({a.path('etmp')!r}, 194)); os.link({a.path('etmp')!r}, "
                           f"{a.path(name)!r}); os.unlink({a.path('etmp')!r})"}[habit])
        began = time.monotonic()
        while time.monotonic() < began + TTL_S * 0.75:
            agent.run(f"os.utime({a.path(name)!r}, follow_symlinks=False)")
            time.sleep(0.1)
        taken(b, name, (habit,))
        wait_for(f"the lease by {habit} to end", TTL_S + 5, lambda name=name, take=take: not_held(b, name, take))
        drop_name = "rmdir" if habit == "mkdir" else "unlink"
        agent.run(f"os.{drop_name}({a.path(name)!r})", "EPERM", "ESTALE")
        agent.run(f"os.utime({a.path(name)!r}, follow_symlinks=False)", "EPERM", "ESTALE")
        agent.run(f"os.rename({a.path(name)!r}, {a.path('away')!r})", "EPERM", "ESTALE")
        os.lstat(b.path(name))
        drop(b.path(name))
        agent.run(f"os.{drop_name}({a.path(name)!r})", "ENOENT")
        agent.close()


def not_held(mount, name, take):
    try:
        take(mount.path(name))
        return True
    except FileExistsError:
        return False


def daemon_dies(a, b):
    for habit, (take, _) in TAKE.items():
        take(a.path(f"k-{habit}.lock"))
    a.kill()
    for habit, (take, drop) in TAKE.items():
        name = f"k-{habit}.lock"
        wait_for(f"the lock of a killed daemon by {habit}", TTL_S + 8,
                 lambda name=name, take=take: not_held(b, name, take))
        drop(b.path(name))
    a.start()
    a.ready()


WORKER = """
import os, sys, time
habit, path, count, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
tmp = path + "." + str(os.getpid()) + sys.argv[5]
if habit == "link":
    os.close(os.open(tmp, os.O_CREAT | os.O_EXCL))
done = 0
while done < n:
    try:
        if habit == "mkdir":
            os.mkdir(path)
        elif habit == "symlink":
            os.symlink(str(os.getpid()), path)
        elif habit == "link":
            os.utime(tmp)
            os.link(tmp, path)
        else:
            os.close(os.open(path + ".new" + sys.argv[5] + str(os.getpid()), os.O_CREAT | os.O_EXCL))
            os.rename(path + ".new" + sys.argv[5] + str(os.getpid()), path)
    except FileExistsError:
        if habit == "rename":
            os.unlink(path + ".new" + sys.argv[5] + str(os.getpid()))
        time.sleep(0.002)
        continue
    with open(count) as f:
        was = int(f.read())
    with open(count, "w") as f:
        f.write(str(was + 1))
    done += 1
    os.rmdir(path) if habit == "mkdir" else os.unlink(path)
"""


def take_turns(t, mounts):
    count = os.path.join(t.directory, "count")
    for habit in ("mkdir", "symlink", "link", "rename"):
        with open(count, "w", encoding="utf-8") as f:
            f.write("0")
        workers = [subprocess.Popen([sys.executable, "-c", WORKER, habit, m.path("turns.lock"), count, "8", m.name])
                   for m in mounts for _ in range(3)]
        for w in workers:
            equal(w.wait(90), 0, f"a worker by {habit}")
        with open(count, encoding="utf-8") as f:
            equal(f.read(), str(8 * len(workers)), f"count under {habit}")


def hang(t, c):
    """Run the nodes with disks that can be stopped: reads go on then, commits don't."""
    trigger = os.path.join(t.directory, "hang")
    for node in c.nodes.values():
        node.process.end()
    for node in c.nodes.values():
        node.start(env={"LD_PRELOAD": t.program("failio.so"), "FAILIO_DIR": node.data, "FAILIO_CALL": "sync",
                        "FAILIO_AFTER": "0", "FAILIO_FILE": trigger, "FAILIO_HANG": "1",
                        "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"})
    for node in c.nodes.values():
        node.wait_ready()
    c.wait_leader()
    return trigger


def not_told(a, trigger):
    """Who is not told whether his rename was done has lost the lock; of a link, he has not got it.

    Each is in a directory of its own: the kernel has those who change one directory wait for each
    other, where no signal reaches them."""
    agents = {name: Agent() for name in ("q", "i", "l", "j")}
    at = {name: f"{name}d/{name}" for name in agents}
    for name, agent in agents.items():
        os.mkdir(a.path(f"{name}d"))
        agent.run(f"fd = os.open({a.path(at[name])!r}, 194); os.write(fd, b'renew 60s')")
    for name in ("i", "j"):
        agents[name].run("import signal; signal.signal(signal.SIGINT, lambda *_: None)")
    with open(trigger, "w", encoding="utf-8"):
        pass
    for name, what in (("q", "rename"), ("i", "rename"), ("l", "link"), ("j", "link")):
        agents[name].start(f"os.{what}({a.path(at[name])!r}, {a.path(at[name] + '2')!r})")
    time.sleep(1)
    for name in ("i", "j"):
        os.kill(agents[name].process.pid, signal.SIGINT)
        equal(agents[name].answer(), "EINTR", "the interrupted call")
    agents["i"].run("os.write(fd, b'renew')", "ESTALE")
    for name in ("q", "l"):
        equal(agents[name].answer(), "ETIMEDOUT", "the call that is not answered")
    agents["q"].run("os.write(fd, b'renew')", "ESTALE")
    agents["q"].run("os.read(fd, 1)", "ESTALE")
    agents["l"].run("os.fsync(fd)")  # By its own clock it is held.
    os.unlink(trigger)
    for name in ("q", "q2", "i", "i2", "l2", "j2"):
        wait_for(f"{name} to be free", 15, lambda name=name: free(a, f"{name[0]}d/{name}"))
    for name in ("l", "j"):
        agents[name].run("os.write(fd, b'renew')")
        agents[name].run(f"os.unlink({a.path(at[name])!r})")
    for agent in agents.values():
        agent.close()


def told_late(a, trigger):
    """A rename is done in time, but its answer comes when the lease is over."""
    late = Agent()
    late.run(f"fd = os.open({a.path('r')!r}, 194); os.write(fd, b'renew 1200ms')")
    with open(trigger, "w", encoding="utf-8"):
        pass
    late.start(f"os.rename({a.path('r')!r}, {a.path('r2')!r})")
    time.sleep(1.5)
    os.unlink(trigger)
    got = late.answer()  # ENOENT: another leader met it when the lease was over.
    check(got in ("ESTALE", "ENOENT"), f"a rename that is told late: {got}")
    late.run("os.fsync(fd)", "ESTALE")
    late.close()
    for name in ("r", "r2"):
        wait_for(f"{name} to be free", 15, lambda name=name: free(a, name))


def free(mount, name):
    try:
        fd = mount.try_acquire(name)
    except OSError:
        return False  # No answer yet.
    if fd is None:
        return False
    os.close(fd)
    os.unlink(mount.path(name))
    return True


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    options = f"ttl={TTL_S}s,timeout=3s,session_ttl=4s"
    a = c.mount("a", options=options + ",host=host-a")
    b = c.mount("b", options=options + ",host=host-b")
    same = c.mount("c", options=options + ",host=host-a")
    exclude(a, b)
    times(a, b)
    names(a, b)
    moved_elsewhere(a, same)
    taken_away(c, a, b)
    expiry(a, b)
    take_turns(t, (a, b))
    daemon_dies(a, b)
    trigger = hang(t, c)
    told_late(a, trigger)
    not_told(a, trigger)
    wait_for("every lock to be gone", TTL_S + 5, lambda: "locks: 0 (0 holds" in c.cli("status").stdout)
    equal(stat.S_IMODE(os.stat(b.dir).st_mode), 0o1777, "mode of the root")


if __name__ == "__main__":
    run_case(main)
