#!/usr/bin/python3
"""`.holdfast/` on two mounts of a cluster: tail -f sees what the other mount does; jeopardy and loss
of a mount that is cut off are told there while it is cut off; no majority."""
# seconds: 60
import errno
import fcntl
import os
import queue
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import fields  # noqa: E402
import prometheus  # noqa: E402
from cluster import check, equal, expect_errno, run_case, wait_for  # noqa: E402
from proxy import Relay  # noqa: E402

HOSTS = ("cut-off", "well-off")

# Crosses the mount as somebody else, to create a file in its root.
STRANGER = r"""
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print("asks", flush=True)
try:
    os.open("new", os.O_CREAT | os.O_EXCL, dir_fd=int(sys.argv[1]))
    print("succeeded")
except OSError as e:
    print(e.errno)
"""


class Tail:
    """`tail -f` of a mount's events, as people run it."""

    def __init__(self, mount, *arguments):
        self.mount = mount
        self.process = subprocess.Popen(["tail", *arguments, "-f", mount.path(".holdfast/events")],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.queue = queue.Queue()
        self.seen = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.queue.put(line)

    def wait(self, event, seconds=20, **having):
        """The next line with these fields; those before it stay in `seen`."""
        wanted = {k: str(v).encode() for k, v in dict(having, event=event).items()}
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.mount.name}: no {wanted} in {self.seen[-30:]}") from None
            self.seen.append(fields.fields(line.rstrip(b"\n")))
            if wanted.items() <= self.seen[-1].items():
                return self.seen[-1]

    def end(self):
        self.process.terminate()
        self.process.wait(10)
        complaints = self.process.stderr.read()
        check(not complaints, f"tail complains: {complaints}")
        self.process.stdout.close()
        self.process.stderr.close()


def read(mount, name):
    with open(mount.path(".holdfast/" + name), "rb") as f:
        return f.read()


def status(mount):
    found = {}
    for line in fields.lines(read(mount, "status")):
        found.update({k: v.decode() for k, v in line.items()})
    return found


def metric(m, name, **labels):
    return prometheus.parse(read(m, "metrics").decode())[name].value(**labels)


def other_mount(a, b):
    """What b does is seen on a, and the other way round."""
    on_a, on_b = Tail(a), Tail(b)
    on_a.wait("following")
    on_b.wait("following")
    session = status(b)["session"]
    fd = b.acquire("job")
    granted = on_a.wait("granted", path="job", session=session, kind="excl", mode="exclusive")
    equal(granted["token"].decode(), str(a.token("job")), "the token")
    check(granted["owner"].startswith(b"well-off/"), f"owner {granted['owner']}")
    os.write(fd, b"renew 1s")
    on_a.wait("renewed", path="job", ttl_ms=1000)
    on_b.wait("lost", path="job", kind="lease", **{"from": "mount"})
    on_a.wait("expired", path="job", token=granted["token"].decode())
    os.close(fd)
    check(metric(b, "holdfast_mount_lost_holds_total", kind="lease") == 1, "no lost lease in the metrics")
    here = os.open(a.path("f"), os.O_CREAT | os.O_RDWR)
    there = os.open(b.path("f"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(here, fcntl.LOCK_EX)
    waiter = threading.Thread(target=lambda: fcntl.flock(there, fcntl.LOCK_EX))
    waiter.start()
    for tail in (on_a, on_b):
        tail.wait("granted", path="f", session=status(a)["session"])
        tail.wait("waiting", path="f", session=session)
    equal(status(b)["waiters"], "1", "waiters of b")
    os.close(here)
    waiter.join(20)
    for tail in (on_a, on_b):
        tail.wait("released", path="f", session=status(a)["session"])
        tail.wait("granted", path="f", session=session, waited="yes")
    os.close(there)
    # tail -n 0: only what is new.
    on_a.wait("released", path="f", session=session)
    new = Tail(a, "-n", "0")
    wait_for("tail to be there", 10, lambda: metric(a, "holdfast_mount_event_readers") == 2)
    time.sleep(0.3)  # It has opened the file, and now seeks to its end.
    os.close(b.acquire("new"))
    new.wait("granted", path="new")
    equal([x for x in new.seen if x.get("path") != b"new"], [], "what tail -n 0 shows")
    os.unlink(b.path("new"))
    for tail in (on_a, on_b, new):
        tail.wait("released", path="new")
        tail.end()


def sessions_and_members(c, a, b):
    sessions = fields.lines(read(a, "sessions"))
    equal(sorted(s["host"] for s in sessions), [h.encode() for h in HOSTS], "hosts of sessions")
    equal([s["host"] for s in sessions if s["own"] == b"yes"], [b"cut-off"], "own session")
    equal({s["session"].decode() for s in sessions}, {status(a)["session"], status(b)["session"]}, "sessions")
    wait_for("members of the cluster", 10, lambda: b"from=mount" not in read(a, "members"))
    members = fields.lines(read(a, "members"))
    leader = c.wait_leader()
    equal({int(m["member"]): m["leader"] for m in members},
          {n: b"yes" if n == leader.id else b"no" for n in c.nodes}, "members")
    equal({int(m["member"]): m["client"].decode() for m in members},
          {n.id: n.client_address for n in c.nodes.values()}, "addresses")


def cut_off(relay, a, b):
    """a's holder is cut off: told in a's own files, while nothing of the cluster can be read."""
    fd = os.open(a.path("held"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    tail, seen_by_b = Tail(a, "-n", "+1"), Tail(b, "-n", "+1")
    tail.wait("following")
    seen_by_b.wait("following")
    session = status(a)["session"]
    before = {e: metric(a, "holdfast_mount_session_events_total", event=e) for e in ("jeopardy", "lost", "resumed")}
    relay.cut("cut-off")
    tail.wait("session-jeopardy", session=session)
    tail.wait("session-lost", session=session)
    tail.wait("lost", path="held", kind="flock", session=session, pid=os.getpid())
    # Paths can be walked, and all is told that needs no cluster.
    s = status(a)
    equal((s["session_state"], s["jeopardy"], s["session_remaining_ms"], s["session"], s["node_answers"]),
          ("lost", "yes", "0", session, "no"), "status")
    equal(metric(a, "holdfast_mount_session_state", state="lost"), 1, "session_state")
    members = fields.lines(read(a, "members"))
    equal({m["from"] for m in members}, {b"mount"}, "members are known by")
    equal({int(m["member"]) for m in members}, {1, 2, 3}, "known members")
    # Nobody wanted its locks: the session is resumed.
    relay.heal("cut-off")
    tail.wait("session-resumed", session=session)
    equal(status(a)["session_state"], "open", "state")
    after = {e: metric(a, "holdfast_mount_session_events_total", event=e) for e in before}
    equal(after, {e: n + 1 for e, n in before.items()}, "events of sessions")
    # Once more; now somebody wants them.
    relay.cut("cut-off")
    tail.wait("lost", path="held", kind="flock")
    wanted = os.open(b.path("held"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(wanted, fcntl.LOCK_EX)
    seen_by_b.wait("granted", path="held", session=status(b)["session"])
    check([x for x in seen_by_b.seen if x["event"] == b"session-ended" and x["session"].decode() == session],
          "the end of the session is not told")
    check([x for x in seen_by_b.seen if x["event"] == b"ended" and x["path"] == b"held" and
           x["code"] == b"session_ended"], "the end of the hold is not told")
    relay.heal("cut-off")
    tail.wait("session-ended", session=session, **{"from": "mount"})
    tail.wait("session-opened")
    wait_for("a new session", 10, lambda: status(a)["session"] not in ("0", session))
    os.close(fd)
    os.close(wanted)
    # What happens now is seen again.
    os.close(b.acquire("again"))
    tail.wait("granted", path="again")
    os.unlink(b.path("again"))
    tail.end()
    seen_by_b.end()


def permissions(relay, a, b):
    """The root's old attributes, by which `.holdfast` can be reached, open nothing else."""
    os.chmod(b.dir, 0o1777)
    wait_for("the mode", 10, lambda: os.stat(a.dir).st_mode & 0o7777 == 0o1777)
    relay.cut("cut-off")
    os.chmod(b.dir, 0o755)
    wait_for("the cut", 30, lambda: status(a)["node_answers"] == "no")
    root = os.open(a.dir, os.O_PATH)
    stranger = subprocess.Popen([sys.executable, "-c", STRANGER, str(root)], stdout=subprocess.PIPE, text=True,
                                pass_fds=[root])
    os.close(root)
    equal(stranger.stdout.readline(), "asks\n", "the stranger")
    time.sleep(1)
    check(stranger.poll() is None, "a create with no majority was answered")
    relay.heal("cut-off")
    equal(stranger.communicate(timeout=30)[0], f"{errno.EACCES}\n", "a stranger's create in the root")
    os.chmod(b.dir, 0o1777)


def no_majority(c):
    m = c.mount("patient", options="ttl=60s,timeout=120s,session_ttl=60s")
    hasty = c.mount("hasty", options="ttl=60s,timeout=2s,session_ttl=60s")
    wait_for("members of the cluster", 10, lambda: b"from=mount" not in read(m, "members"))
    stopped = c.followers()
    for node in stopped:
        node.process.stop()
    # With timeout=120s a read that waited for the cluster would be noticed.
    for _ in range(3):
        s = status(m)
        equal(s["session_state"], "open", "state")
        check(metric(m, "holdfast_mount_info", version=s["version"], source=m.source, mount=m.dir,
                     host=s["host"]) == 1, "no info")
        members = fields.lines(read(m, "members"))
    equal({x["from"] for x in members}, {b"mount"}, "members are known by")
    expect_errno(errno.ETIMEDOUT, lambda: read(hasty, "sessions"), "sessions")
    check(metric(hasty, "holdfast_client_request_failures_total", kind="query", reason="timeout") > 0,
          "no time-out in the metrics")
    check(metric(hasty, "holdfast_mount_operations_total", operation="read", result="ETIMEDOUT") == 1,
          "the read's ETIMEDOUT was not counted")
    for node in stopped:
        node.process.cont()
    wait_for("the cluster", 30, lambda: b"from=cluster" in read(m, "members"))
    check(len(fields.lines(read(hasty, "sessions"))) >= 2, "sessions")


def leader_dies(c, m):
    """The stream goes on through a change of leaders."""
    tail = Tail(m, "-n", "+1")
    tail.wait("following")
    os.close(m.acquire("before"))
    tail.wait("granted", path="before")
    leader = c.wait_leader()
    leader.kill()
    os.unlink(m.path("before"))
    tail.wait("released", path="before")
    equal(len([x for x in tail.seen if x.get("path") == b"before" and x["event"] == b"granted"]), 1,
          "times that the grant was told")
    check(not [x for x in tail.seen if x["event"] in (b"missed", b"gap")], "events were missed")
    check(re.search(r"^leader=[1-9]", read(m, "status").decode(), re.M), "no leader in the status")
    equal([status(m)["leader"] == str(leader.id)], [False], "the dead one leads")
    # And through the death of all: each grant is told once, whatever the nodes still know.
    for node in c.nodes.values():
        node.kill()
    for node in c.nodes.values():
        node.start(options=node.extra)
    os.close(m.acquire("after"))
    os.unlink(m.path("after"))
    tail.wait("released", path="after", seconds=40)
    for name in (b"before", b"after"):
        equal(len([x for x in tail.seen if x.get("path") == name and x["event"] == b"granted"]), 1,
              f"times that the grant of {name} was told")
    tail.end()


def main(t):
    t.need_fuse()
    t.need_root()
    relay = Relay(HOSTS)
    c = t.cluster(3)
    for node in c.nodes.values():
        behind = t.free_port("127.0.0.1")
        relay.listen(node.client_port, behind)
        node.extra = ("--listen", f"{node.raft_address},127.0.0.1:{behind}")
        node.start(options=node.extra)
    c.wait_leader()
    options = "ttl=20s,timeout=30s,session_ttl=2s,host="
    a, b = (c.mount(name, options=options + host) for name, host in zip("ab", HOSTS))
    other_mount(a, b)
    sessions_and_members(c, a, b)
    cut_off(relay, a, b)
    permissions(relay, a, b)
    no_majority(c)
    leader_dies(c, b)


run_case(main)
