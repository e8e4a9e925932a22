#!/usr/bin/python3
"""The snippets of README.md's "Use it from", taken from there and run on two mounts."""
# seconds: 35
# sanitized: no
import fcntl
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from lockers import PATIENCE_S, nothing_left  # noqa: E402

README = os.path.join(HERE, "..", "..", "README.md")
LANGUAGES = {"sh", "python", "go", "java", "js"}
QUEUE = LANGUAGES - {"js"}  # These wait in the cluster's queue; Node.js asks again and again.

# The work under the lock: the other host sees the lock held with the token that we were given; one is
# added to a number, slowly.
WORK = """#!/bin/sh
set -e
grep -qx "token=$1" "$OTHER/job"
read -r n <count
sleep 0.01
echo $((n + 1)) >count
"""


def snippets():
    with open(README) as f:
        section = re.search(r"^## Use it from\n(.*?)^## ", f.read(), re.M | re.S)
    check(section, "README.md has no section 'Use it from'")
    found = dict(re.findall(r"^```(\w+)\n(.*?)^```$", section.group(1), re.M | re.S))
    equal(set(found), LANGUAGES, "languages of the snippets")
    return found


class Snippet:
    """One language's snippet, made ready to run on any mount."""

    def __init__(self, t, language, text, mounts):
        self.language = language
        self.directory = os.path.join(t.directory, language)
        self.commands = {m.name: self.prepare(m, text) for m in mounts}

    def prepare(self, mount, text):
        """Write it down, compile it if need be; the command that runs it."""
        directory = os.path.join(self.directory, mount.name)
        os.makedirs(directory)
        check("/locks/job" in text, f"the {self.language} snippet does not lock /locks/job")
        source = os.path.join(directory, "Job." + self.language)
        with open(source, "w") as f:
            f.write(text.replace("/locks/", mount.dir + "/"))
        if self.language == "go":
            program = os.path.join(directory, "job")
            env = dict(os.environ, GOCACHE=os.path.join(self.directory, "cache"), GO111MODULE="off", CGO_ENABLED="0",
                       GOPATH=os.path.join(self.directory, "path"), GOFLAGS="", GOTOOLCHAIN="local")
            subprocess.run(["go", "build", "-o", program, source], check=True, timeout=120, env=env)
            return [program]
        if self.language == "java":
            subprocess.run(["javac", "-d", directory, source], check=True, timeout=120)
            return ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", directory, "Job"]
        return [{"sh": "sh", "python": sys.executable, "js": "node"}[self.language], source]

    def start(self, mount, other):
        return subprocess.Popen(self.commands[mount.name], cwd=self.directory, stdin=subprocess.DEVNULL,
                                env=dict(os.environ, OTHER=other.dir))

    def put_work(self):
        path = os.path.join(self.directory, "work")
        with open(path, "w") as f:
            f.write(WORK)
        os.chmod(path, 0o755)
        self.set_count(0)

    def set_count(self, n):
        with open(os.path.join(self.directory, "count"), "w") as f:
            f.write(f"{n}\n")

    def count(self):
        with open(os.path.join(self.directory, "count")) as f:
            return int(f.read())


def waits_and_works(snippet, a, b):
    """Somebody on another host has the lock: it waits, then works."""
    fd = os.open(b.path("job"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    p = snippet.start(a, b)
    if snippet.language in QUEUE:
        wait_for(f"{snippet.language} to wait", PATIENCE_S, lambda: b.read("job")["waiters"] == "1")
    else:
        time.sleep(1)
    equal((p.poll(), snippet.count()), (None, 0), f"{snippet.language}: status and work done while the lock was held")
    os.close(fd)
    equal(p.wait(PATIENCE_S), 0, f"{snippet.language}: exit status")
    equal(snippet.count(), 1, f"{snippet.language}: work done")
    wait_for(f"{snippet.language} to have let go", 10, lambda: a.read("job") is None)


def all_together(found, a, b):
    """All languages at once, on both mounts, add to one number."""
    first = found[0]
    first.set_count(0)
    for s in found[1:]:
        os.unlink(os.path.join(s.directory, "count"))
        os.symlink(os.path.join(first.directory, "count"), os.path.join(s.directory, "count"))
    running = [(s, s.start(m, other)) for s in found for m, other in ((a, b), (b, a)) for _ in range(2)]
    for s, p in running:
        equal(p.wait(PATIENCE_S), 0, f"{s.language}: exit status among others")
    equal(first.count(), len(running), "work done by all together")


def main(t):
    t.need_root()
    t.need_fuse()
    c = t.cluster(3).start()
    a = c.mount("a", options="timeout=20s,host=host-a")
    b = c.mount("b", options="timeout=20s,host=host-b")
    found = [Snippet(t, language, text, (a, b)) for language, text in snippets().items()]
    for s in found:
        s.put_work()
        waits_and_works(s, a, b)
    all_together(found, a, b)
    nothing_left(c)


run_case(main)
