#!/usr/bin/python3
"""The HTTP endpoint of nodes and mounts: what it answers, to whom, and that nobody can hold it up."""
# seconds: 25
# sanitized: no
import os
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import prometheus  # noqa: E402
import telemetry  # noqa: E402
from cluster import Cluster, Process, check, equal, is_mounted, run_case, unmount, wait_for  # noqa: E402

HOST = "127.0.0.1"
LIFE_S = 10  # ENDPOINT_LIFE_MS
CONNECTIONS = 32  # ENDPOINT_CONNECTIONS_MAX


def answers(port):
    """Every path and method, right and wrong."""
    for path, kind, starts in (("/metrics", "text/plain; version=0.0.4", "# HELP "),
                               ("/healthz", "text/plain", "ok\n"),
                               ("/readyz", "text/plain", "ready\n")):
        status, headers, text = telemetry.get(port, path)
        equal(status, 200, path)
        check(headers["Content-Type"].startswith(kind), f"{path}: {headers['Content-Type']}")
        check(text.startswith(starts), f"{path}: {text[:80]!r}")
        equal(headers["Connection"], "close", f"{path}: Connection")
        equal(telemetry.get(port, path + "?a=b")[0], 200, path + " with a query")
        status, headers, text = telemetry.get(port, path, "HEAD")
        equal((status, text), (200, ""), "HEAD " + path)
        check(int(headers["Content-Length"]) > 2, f"HEAD {path}: no length")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"):
            status, headers, text = telemetry.get(port, path, method)
            equal(status, 405, f"{method} {path}")
            equal(headers["Allow"], "GET, HEAD", f"{method} {path}: Allow")
        equal(telemetry.get(port, path, body="x")[0], 413, f"{path} with a body")
    for path in ("/", "/metrics/", "/metric", "/metrics/x", "//metrics", "/x" * 1000, "/%00",
                 "/../metrics", "/healthz%2f"):
        status, _, text = telemetry.get(port, path)
        equal(status, 404, path[:40])
        check("/metrics" in text, f"404: {text!r}")
    telemetry.metrics(port)  # As the strict reader wants it.


def raw(port, data, seconds=LIFE_S + 10):
    """What comes back for these bytes until the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), seconds) as s:
        try:
            s.sendall(data)
            got = b""
            while True:
                part = s.recv(65536)
                if not part:
                    return got
                got += part
        except ConnectionResetError:
            return got


def garbage(port):
    """No HTTP, half of it, too much of it: an error or a closed connection, at once."""
    for data in (b"\x00" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n",
                 b"GET /metrics HTTP/1.1\r\n" + b"a: " + b"x" * 65536 + b"\r\n\r\n",
                 b"GET /" + b"x" * 65536 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                 b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
                 b"GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n"):
        status = raw(port, data)[9:10]
        check(status in (b"", b"4", b"5"), f"{data[:40]!r}: {status!r}")
    equal(telemetry.get(port, "/healthz")[0], 200, "after garbage")


def slow(port):
    """Who sends a byte a second, or nothing, or does not read, is closed; and 100 of them keep
    nobody out meanwhile."""
    idle = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(100)]
    began = time.monotonic()
    for s in idle[::2]:
        s.sendall(b"GET /metr")
    for _ in range(5):
        for path in ("/metrics", "/healthz", "/readyz"):
            equal(telemetry.get(port, path)[0], 200, path + " beside idle connections")
    for s in idle:
        s.settimeout(LIFE_S + 30)
        while True:
            try:
                s.sendall(b"i")
                s.settimeout(1)
                if s.recv(4096) == b"":
                    break
            except socket.timeout:
                check(time.monotonic() - began < LIFE_S + 30, "a slow connection stays open")
            except OSError:
                break
        s.close()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def health(c, mount_port, ports):
    """Without a majority nothing is ready, but all are alive."""
    leader = c.wait_leader()
    for node in c.nodes.values():
        if node is not leader:
            node.process.stop()
    text = telemetry.wait_status(ports[leader.id], "/readyz", 503)
    check("leader" in text, f"/readyz: {text!r}")
    check("leader" in telemetry.wait_status(mount_port, "/readyz", 503), "/readyz of the mount")
    for port in (ports[leader.id], mount_port):
        equal(telemetry.get(port, "/healthz")[0], 200, "/healthz")
        telemetry.metrics(port)
    for node in c.nodes.values():
        if node is not leader:
            node.process.cont()
    for port in (*ports.values(), mount_port):
        telemetry.wait_status(port, "/readyz", 200)


def refused(t, c):
    """Beyond loopback only if it is allowed; a taken port, a bad address: no start."""
    def start(name, *options):
        argv = [t.program("holdfastd"), "--id", "1", "--data", f"{t.directory}/{name}",
                "--member", f"1={HOST}:{t.free_port(HOST)},{HOST}:{t.free_port(HOST)}", *options]
        return Process(t, name, argv)

    for name, options, code, says in (
            ("far", ["--http", f"0.0.0.0:{t.free_port(HOST)}"], 1, "--http-insecure"),
            ("taken", ["--http", c.nodes[1].client_address], 1, "in use"),
            ("bad", ["--http", "nonsense"], 2, "HOST:PORT"),
            ("unix", ["--http", "unix:/tmp/x"], 2, "HOST:PORT")):
        p = start(name, *options)
        equal(p.wait(20), code, name)
        check(says in p.text(), f"{name}: {p.text()!r}")
        check(not os.path.exists(f"{t.directory}/{name}"), f"{name}: it has founded a cluster")
    port = t.free_port(HOST)
    p = start("allowed", "--http", f"0.0.0.0:{port}", "--http-insecure")
    telemetry.wait_status(port, "/readyz", 200)
    equal(p.end(), 0, "exit code")
    argv = [t.program("mount.holdfast"), c.addresses(), t.directory, "-f", "-o"]
    for name, option, says in (("m-far", f"http=0.0.0.0:{port}", "http_insecure"),
                               ("m-taken", f"http={c.nodes[1].client_address}", "in use")):
        p = Process(t, name, argv + [option])
        equal(p.wait(20), 32, name)
        check(says in p.text(), f"{name}: {p.text()!r}")


def local(t):
    """A mount with a store in it tells of both; on IPv6."""
    port = t.free_port("::1")
    d = os.path.join(t.directory, "mnt-local")
    os.mkdir(d)
    p = Process(t, "mount-local", [t.program("mount.holdfast"), "local", d, "-f", "-o",
                                   f"data={t.directory}/local,http=[::1]:{port}"])
    wait_for("the mount", 20, lambda: is_mounted(d))
    status, _, text = telemetry.get(port, "/metrics", host="::1")
    equal(status, 200, "/metrics")
    families = prometheus.parse(text)
    for name in ("holdfast_mount_holds", "holdfast_node_holds", "holdfast_disk_free_bytes"):
        check(name in families, f"no {name}")
    equal(families["holdfast_build_info"].total(component="mount"), 1, "component")
    equal(telemetry.get(port, "/readyz", host="::1")[0], 200, "/readyz")
    unmount(d)
    equal(p.wait(20), 0, "exit code of the local mount")


def main(t):
    c = Cluster(t, 3)
    ports = {number: t.free_port(HOST) for number in c.nodes}
    mount_port = t.free_port(HOST)
    for number, node in c.nodes.items():
        node.start(options=["--http", f"127.0.0.1:{ports[number]}"])
    c.wait_leader()
    m = c.mount("a", options=f"ttl=5s,timeout=3s,http=127.0.0.1:{mount_port}")
    for port in (*ports.values(), mount_port):
        telemetry.wait_status(port, "/readyz", 200)
    answers(ports[1])
    answers(mount_port)
    garbage(ports[1])
    refused(t, c)
    local(t)
    node = c.nodes[1]
    before = descriptors(node.process.pid)
    slow(ports[1])
    wait_for("the connections to be gone", 20,
             lambda: descriptors(node.process.pid) <= before)
    health(c, mount_port, ports)
    equal(m.unmount(), 0, "exit code of the mount")
    # Connections that are open at the end are in nobody's way.
    left = [socket.create_connection(("127.0.0.1", ports[1]), 5) for _ in range(CONNECTIONS // 2)]
    for s in left:
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    node.process.signal(signal.SIGTERM)
    equal(node.process.end(), 0, "exit code of the node")


if __name__ == "__main__":
    run_case(main)
