#!/usr/bin/python3
"""Truncated and flipped store files: the node refuses to start with exit code 3 and a sentence
that names the file; the cluster goes on; `holdfast member replace` brings the node back anew."""
# seconds: 30
import glob
import os
import random
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from load import Load  # noqa: E402


def files(node, pattern):
    return sorted(glob.glob(os.path.join(node.data, pattern)))


def truncate(path):
    """To half, and without the journal of a transaction that was under way: that would mend it."""
    os.truncate(path, os.path.getsize(path) // 2)
    if os.path.exists(path + "-journal"):
        os.unlink(path + "-journal")


def flip_in(path, needle, rng):
    """Flip a bit where our data is: in a byte of the needle, somewhere in the file."""
    with open(path, "r+b") as f:
        data = f.read()
        at = data.find(needle)
        if at < 0:
            return False
        at += rng.randrange(len(needle))
        f.seek(at)
        f.write(bytes([data[at] ^ (1 << rng.randrange(8))]))
    return True


def refuses(node, path, what):
    node.start()
    code = node.process.wait(15)
    text = node.process.last_text()
    equal(code, 3, f"exit code with {what}: {text[-600:]}")
    names = {os.path.basename(path), os.path.basename(path).removesuffix("-wal")}
    check(any(n in text for n in names), f"{what}: the message does not name {path}: {text[-600:]}")


class Backup:
    """The data directory as it was, to try the next damage on."""

    def __init__(self, node):
        self.node = node
        self.copy = node.data + ".copy"
        shutil.copytree(node.data, self.copy)

    def restore(self):
        shutil.rmtree(self.node.data)
        shutil.copytree(self.copy, self.node.data)


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def with_snapshot(c):
    """Have every node write an image."""
    with c.wait_leader().connect() as w:
        w.admin(6)  # COMPACT
    for node in c.nodes.values():
        if node.status()["snapshot_index"] == 0:
            with node.connect() as w:
                try:
                    w.admin(6)
                except Exception:  # pylint: disable=broad-except
                    pass  # A follower may send us to the leader.
    wait_for("a snapshot", 15, lambda: any(files(n, "snapshot-*.db") for n in c.nodes.values()))


def main(t):
    rng = random.Random(int.from_bytes(os.urandom(4), "little"))
    c = t.cluster(3).start()
    load = Load(c)
    load.write(100)
    with_snapshot(c)
    load.write(100)
    c.wait_digests_equal()
    with_image = [n for n in c.nodes.values() if files(n, "snapshot-*.db")]
    followers = [n for n in with_image if n is not c.wait_leader()]
    node = (followers or with_image)[0]
    # A follower applies what is committed before its own disk has it.
    wait_for("the log on the follower's disk", 15, lambda: any(
        b"disk150" in contents(path) for path in files(node, "log-*")))
    node.kill()
    load.write(20)
    backup = Backup(node)

    tried = 0
    for pattern in ("meta.db", "log-*.db", "log-*.db-wal", "meta.db-wal", "snapshot-*.db"):
        for path in files(node, pattern):
            if os.path.getsize(path) > 0:
                truncate(path)
                refuses(node, path, f"{os.path.basename(path)} truncated to half")
                backup.restore()
                tried += 1
    check(tried >= 3, f"only {tried} files found in {os.listdir(node.data)}")

    flipped = 0
    for pattern, needle in (("log-*.db", b"disk150"), ("log-*.db-wal", b"disk150"),
                            ("snapshot-*.db", b"disk50")):
        for path in files(node, pattern):
            if flip_in(path, needle, rng):
                refuses(node, path, f"a bit flipped in {os.path.basename(path)}")
                backup.restore()
                flipped += 1
                break
    check(flipped >= 2, f"only {flipped} places found to flip a bit at")

    # Undamaged it still starts; then damage it for good, and replace it.
    node.start()
    node.wait_ready()
    c.wait_digests_equal()
    node.kill()
    truncate(files(node, "meta.db")[0])
    refuses(node, files(node, "meta.db")[0], "meta.db truncated")
    # On the same machine, at the same addresses, as README.md says.
    new = c.add_node(4, ports=(node.raft_port, node.client_port))
    new.joining = True
    new.data = node.data + ".new"
    new.start()
    done = c.cli("member", "replace", 1 if node.id != 1 else 2,
                 f"5={c.nodes[1 if node.id != 1 else 2].raft_address},127.0.0.1:9", "--timeout", "2s",
                 ok=False)
    check(done.returncode != 0 and "still speaks" in done.stderr,
          f"a living node was replaced at its own address: {done.stderr}")
    c.cli("member", "replace", node.id, new.member)
    del c.nodes[node.id]
    new.joining = False
    load.write(20)
    c.wait_digests_equal()
    load.verify(new)


if __name__ == "__main__":
    run_case(main)
