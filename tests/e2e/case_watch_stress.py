#!/usr/bin/python3
"""Many processes take and drop locks in a directory that is watched with dirwatch, and the mounts go
in every way in which a mount can go: nobody hangs, nobody gets a wrong errno, no event comes twice."""
# seconds: 60
# sanitized: no
import contextlib
import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import inotify  # noqa: E402
from cluster import Failed, check, equal, is_mounted, run_case, wait_for  # noqa: E402
from inotify import CREATE, DELETE, DELETE_SELF, OVERFLOW  # noqa: E402

NAMES = ["a", "b", "c.lock", "d"]
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV)
WORKERS = 6


class Dead(Exception):
    """The mount is gone."""


def call(allowed, function, *arguments):
    """Return: the errno, or 0."""
    try:
        result = function(*arguments)
        if function is os.open:
            with contextlib.suppress(OSError):
                os.close(result)
        return 0
    except OSError as e:
        if e.errno in DEAD:
            raise Dead from e
        if e.errno not in allowed:
            raise Failed(f"{function.__name__}{arguments}: {errno.errorcode[e.errno]}") from e
        return e.errno


def work(seed, plain, stop):
    """Take and drop until the mount is gone or it is told to stop; returns how often."""
    rng = random.Random(seed)
    n = 0
    while not stop[0]:
        name = rng.choice(NAMES)
        directory_like = name.endswith(".lock")
        if directory_like:
            taken = call([errno.EEXIST], os.mkdir, name) == 0
        elif rng.random() < 0.2 and not plain:
            taken = call([errno.EEXIST], os.symlink, "me", name) == 0
        else:
            taken = call([errno.EEXIST], os.open, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644) == 0
        if not taken:
            call([errno.ENOENT], os.lstat, name)
            continue
        n += 1
        call([], os.lstat, name)  # It is ours: it is there, and can be removed.
        call([], os.rmdir if directory_like else os.unlink, name)
    return n


def start(directory, seed, plain=False):
    read, write = os.pipe()
    stop = mmap.mmap(-1, 1)  # Shared.  (A signal would make for EINTR.)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.chdir(directory)  # In the mount even when it has no path any more.
            n = work(seed, plain, stop)
            os.write(write, b"%d" % n)
            status = 0
        except Dead:
            status = 0
        except Failed as e:
            os.write(write, str(e).encode())
        except BaseException as e:  # pylint: disable=broad-except
            os.write(write, repr(e).encode())
        finally:
            os._exit(status)
    os.close(write)
    return pid, read, stop


def halt(workers):
    for _, _, stop in workers:
        stop[0] = 1


def finish(workers, why):
    """All must end, soon; returns their counts."""
    total = 0
    end = time.monotonic() + 60
    for pid, read, _ in workers:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                with open(f"/proc/{pid}/stack") as f:
                    stack = f.read()
                os.kill(pid, signal.SIGKILL)
                raise Failed(f"{why}: a worker hangs\n{stack}")
            time.sleep(0.01)
        with os.fdopen(read, "rb") as f:
            text = f.read().decode()
        check(status == 0, f"{why}: a worker failed: {text}")
        total += int(text or 0)
    return total


def events_once(a, b, seconds):
    """Both directories are watched while both mounts work; the counts can't be more than what was."""
    with inotify.Inotify() as n:
        watches = {n.watch(m.path("w"), CREATE | DELETE): m.name for m in (a, b)}
        workers = [start(m.path("w"), i, True) for i in range(WORKERS) for m in (a, b)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            n.read(0.1)
        halt(workers)
        while n.read(2.0):
            pass
        taken = finish(workers, "work on two mounts")
        while n.read(2.0):
            pass
        check(not any(e[1] & OVERFLOW for e in n.events), "the kernel's queue ran over")
        for wd, name in watches.items():
            for mask, what in ((CREATE, "IN_CREATE"), (DELETE, "IN_DELETE")):
                told = sum(1 for e in n.events if e[0] == wd and e[1] == mask)
                print(f"  mount {name}: {told} {what} of {taken}")
                check(0 < told <= taken, f"{told} times {what} for {taken} locks")


def busy(m, plain=True):
    """Workers, a watcher of the directory, and watchers of the files, as long as the mount lives."""
    workers = [start(m.path("w"), 100 + i, plain) for i in range(WORKERS)]
    n = inotify.Inotify()
    n.watch(m.path("w"), CREATE | DELETE)
    end = time.monotonic() + 1.0 + random.random() / 2
    while time.monotonic() < end:
        n.read(0.01)
        for name in NAMES:
            with contextlib.suppress(OSError):
                n.watch(m.path("w/" + name), DELETE_SELF)
    return workers, n


def goes(m, how, other):
    """The mount goes under load from both sides; then it can be mounted again."""
    theirs = [start(other.path("w"), 200 + i) for i in range(3)]
    workers, n = busy(m)
    if how == "umount -l":
        subprocess.run(["umount", "-l", m.dir], check=True, timeout=60)
        n.close()  # It keeps the file system alive.
    elif how == "SIGTERM":
        m.process.signal(signal.SIGTERM)
    else:
        m.process.kill()
    if how == "umount -l":
        halt(workers)
    finish(workers, how)
    if how != "umount -l":
        n.close()
    if how != "kill -9":
        equal(m.process.wait(60), 0, f"exit after {how}")
    halt(theirs)
    finish(theirs, how + " of the other mount")
    if is_mounted(m.dir):
        subprocess.run(["umount", "-l", m.dir], check=True, timeout=60)
    m.start()
    wait_for("the locks of the dead mount to end", 20, lambda: not os.listdir(m.path("w")))


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    options = "ttl=3s,timeout=5s,dirwatch"
    a = c.mount("a", options=options)
    b = c.mount("b", options=options)
    os.mkdir(a.path("w"))
    rounds = int(t.arguments[0]) if t.arguments else 2
    events_once(a, b, 3 + rounds)
    for i in range(rounds):
        for how in ("kill -9", "SIGTERM", "umount -l"):
            began = time.monotonic()
            goes(a, how, b)
            print(f"  {how} under load, round {i}: {time.monotonic() - began:.1f} s")
    for m in (a, b):
        equal(m.unmount(), 0, f"exit of mount {m.name}")
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
