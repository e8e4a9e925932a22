#!/usr/bin/python3
"""IPv6 and names as addresses; plain TCP beyond loopback is refused unless told."""
# seconds: 8
# sanitized: no
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, run_case  # noqa: E402


def have_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


def use(c, name):
    """A lock through the cluster: natively, by the CLI, by a mount."""
    leader = c.wait_leader()
    with leader.connect() as w:
        w.open_session()
        check(w.acquire(b"native", b"me")["code"] == "ok", f"{name}: acquire")
    c.cli("status")
    if os.path.exists("/dev/fuse"):
        m = c.mount(name)
        os.close(m.acquire("file"))
        check(m.token("native") is not None, f"{name}: the native lock is not on the mount")
        os.unlink(m.path("file"))
    leader.kill()
    c.wait_leader()
    leader.start()
    c.wait_digests_equal()


def main(t):
    use(t.cluster(3, host="localhost").start(), "names")
    if have_ipv6():
        mixed = t.cluster(0)
        mixed.test.directory = os.path.join(t.directory, "six")
        os.mkdir(mixed.test.directory)
        for number, host in ((1, "::1"), (2, "::1"), (3, "127.0.0.1")):
            mixed.add_node(number, host)
        use(mixed.start(), "six")
        mixed.test.directory = os.path.dirname(mixed.test.directory)
    else:
        print("no IPv6 here")

    # Not loopback: only with --insecure.
    c = t.cluster(0)
    node = c.add_node(9)
    node.member = f"9=192.0.2.1:{node.raft_port},192.0.2.1:{node.client_port}"
    node.data = os.path.join(t.directory, "data-outside")
    node.start()
    code = node.process.wait(10)
    text = node.process.last_text()
    check(code not in (0, None), f"192.0.2.1 without --insecure: exit {code}")
    check("insecure" in text, f"192.0.2.1 without --insecure: the message does not say what to do: {text}")


if __name__ == "__main__":
    run_case(main)
