#!/usr/bin/python3
"""A mount that missed events which no node has any more asks what became of its holds: who lost his
lock meanwhile is told, who has it still is not."""
# seconds: 7
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from proxy import Relay  # noqa: E402


# Takes locks on one mount; then says for each line that it reads whose lock is lost.  (Not the test
# itself: what it starts would close its descriptors, which waits for a mount that is stopped.)
HOLDER = r"""
import errno, fcntl, os, sys
fds = {}
for name in sys.argv[2:]:
    kind = name.split("-")[0]
    flags = os.O_CREAT | os.O_RDWR | (os.O_EXCL if kind == "lease" else 0)
    fds[name] = os.open(os.path.join(sys.argv[1], name), flags, 0o644)
    if kind != "lease":
        fcntl.flock(fds[name], fcntl.LOCK_SH if kind == "shared" else fcntl.LOCK_EX)
print("ready", flush=True)
for _ in sys.stdin:
    lost = []
    for name, fd in fds.items():
        try:
            os.fsync(fd)
        except OSError as e:
            lost.append(name if e.errno == errno.ESTALE else errno.errorcode[e.errno])
    print(*lost, flush=True)
"""


class Holder:
    def __init__(self, mount, *names):
        self.popen = subprocess.Popen([sys.executable, "-c", HOLDER, mount.dir, *names], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        equal(self.popen.stdout.readline(), "ready\n", "the holder")

    def lost(self):
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline().split()

    def end(self):
        self.popen.stdin.close()
        self.popen.wait(20)


def read(mount):
    with open(mount.path(".holdfast/status"), encoding="utf-8") as f:
        return f.read()


def main(t):
    c = t.cluster(1, options=("--snapshot-log-entries", "60"))
    node = c.nodes[1]
    relay = Relay(["cut-off", "well-off"])
    behind = t.free_port("127.0.0.1")
    relay.listen(node.client_port, behind)
    ports = ("--listen", f"{node.raft_address},127.0.0.1:{behind}")
    node.start(options=ports)
    c.wait_leader()
    a, b = (c.mount(name, options=f"ttl=100s,session_ttl=100s,timeout=30s,host={host}")
            for name, host in (("a", "cut-off"), ("b", "well-off")))
    others = Holder(b, "shared")
    holder = Holder(a, "flock", "flock-kept", "lease", "lease-kept", "shared")
    tokens = {name: b.token(name) for name in ("flock", "lease")}
    with node.connect() as client:  # The younger one is a's.
        tokens["shared"] = max(client.tokens("shared"))

    relay.cut("cut-off")
    # Its connection is given up, and with it what would still come on it.
    wait_for("the mount to be cut off", 30, lambda: "connected=no" in read(a))
    for name, token in tokens.items():
        c.cli("break", name, "--token", token, cluster=f"127.0.0.1:{behind}")
    index = node.status()["applied_index"]

    def passed():
        for _ in range(30):
            os.close(b.acquire("traffic"))
            os.unlink(b.path("traffic"))
        return node.status()["snapshot_index"] > index

    wait_for("a snapshot of what the mount missed", 60, passed)
    node.kill()
    node.start(options=ports)
    c.wait_leader()
    relay.heal("cut-off")
    wait_for("the holders to be told", 30, lambda: sorted(holder.lost()) == sorted(tokens))
    for name in ("flock-kept", "lease-kept"):
        check(b.token(name), f"'{name}' is gone")
    equal(others.lost(), [], "what the other holder of a shared lock lost")
    holder.end()
    others.end()


if __name__ == "__main__":
    run_case(main)
