#!/usr/bin/python3
"""A full disk under one node: it says so, naming the file, and ends with exit code 4; the cluster
goes on; with space again it starts and catches up."""
# seconds: 20
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import Skip, check, equal, run_case, wait_for  # noqa: E402
from load import Load  # noqa: E402

SIZE_MIB = 96


def fill(directory):
    path = os.path.join(directory, "filler")
    with open(path, "ab", buffering=0) as f:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    f.write(b"x" * size)
            except OSError:
                pass
    return path


def one(c, load, node, disk):
    node.wait_ready()
    load.write(5)
    filler = fill(disk)
    # Not every write needs a new block: go on until one does.
    wait_for("the full disk to be noticed", 60, lambda: (load.write(200), not node.alive())[1])
    equal(node.process.wait(5), 4, f"exit code of node {node.id} with a full disk")
    text = node.process.last_text()
    check(node.data in text, f"the message names no file in {node.data}: {text[-800:]}")
    check("full" in text or "space" in text, f"the message does not say that it is full: {text[-800:]}")
    load.write(20)

    # Started with the disk still full: a clear message again, no crash.
    node.start()
    if wait_for("node or its end", 10, lambda: not node.alive() or node.status()) is True:
        code = node.process.popen.returncode
        check(code in (1, 3, 4), f"exit code at start with a full disk: {code}: "
                              f"{node.process.last_text()[-500:]}")
        node.process.expected = True
    else:
        node.kill()
    os.unlink(filler)
    node.start()
    node.wait_ready()
    c.wait_digests_equal()
    load.verify(node)


def main(t):
    t.need_root()
    c = t.cluster(3)
    disk = os.path.join(t.directory, "disk")
    os.mkdir(disk)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=700", "tmpfs", disk],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Skip(f"no tmpfs: {done.stderr.strip()}")
    node = c.nodes[3]
    node.data = os.path.join(disk, "data")
    c.start()
    load = Load(c)
    one(c, load, node, disk)
    if c.wait_leader() is not node:
        c.cli("leader", "transfer", node.id)
        wait_for("node 3 to lead", 10, lambda: c.leader() is node)
    one(c, load, node, disk)


if __name__ == "__main__":
    run_case(main)
