#!/usr/bin/python3
"""What stands on the wire: with TLS no lock's name, owner or note in the clear, on any port; without,
all of them (so that the test is known to look)."""
# seconds: 8
import ctypes
import os
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from case_http_tls import TlsGateway, make_certificate  # noqa: E402
from cluster import check, equal, run_case, wait_for  # noqa: E402
from gateway import Events, Gateway  # noqa: E402

WORDS = (b"telltale-lock", b"telltale-owner", b"telltale-note")
CLONE_NEWNET = 0x40000000
ETH_P_IP = 0x0800


class Capture(threading.Thread):
    """All that crosses the loopback interface, by its port (the lower one that was asked for)."""

    def __init__(self, ports):
        super().__init__(daemon=True)
        self.bytes = {port: bytearray() for port in ports}
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self.socket.bind(("lo", ETH_P_IP))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.settimeout(0.2)
        self.stopped = False
        self.start()

    def run(self):
        while not self.stopped:
            try:
                packet, (_, _, kind, *_) = self.socket.recvfrom(70000)
            except TimeoutError:
                continue
            if kind == socket.PACKET_OUTGOING or packet[9] != socket.IPPROTO_TCP:
                continue
            tcp = packet[(packet[0] & 15) * 4:]
            for port in (int.from_bytes(tcp[0:2], "big"), int.from_bytes(tcp[2:4], "big")):
                if port in self.bytes:
                    self.bytes[port] += tcp[(tcp[12] >> 4) * 4:]

    def stop(self):
        self.stopped = True
        self.join(10)
        self.socket.close()


def use(c, g, name):
    """The same lock by all ways, from and to everywhere."""
    lock = "telltale-lock/" + name
    events = Events(g, f"/locks/{lock}/events")
    events.until("state")
    equal(g.acquire(lock, "telltale-owner", note="telltale-note").status, 200, "acquire")
    equal(g.get(f"/locks/{lock}").json["note"], "telltale-note", "show")
    events.until("granted")
    for node in c.nodes.values():
        equal(c.cli_json("show", lock, cluster=node.client_address)["holds"][0]["note"], "telltale-note", "by a client")
    if os.path.exists("/dev/fuse"):
        m = c.mount(name)
        equal(m.read(lock)["note"], "telltale-note", "on a mount")
    equal(g.release(lock, "telltale-owner").status, 200, "release")
    events.close()


def look(t, tls):
    c = t.cluster(3, tls=tls)
    for node in c.nodes.values():
        node.data += "-tls" if tls else "-clear"
    ports = {n.raft_port: f"raft of node {n.id}" for n in c.nodes.values()}
    ports |= {n.client_port: f"clients of node {n.id}" for n in c.nodes.values()}
    if tls:
        pair = make_certificate(t.directory, "web")
        TlsGateway.ca = pair[0]
        g = TlsGateway(c, "tls", options=("--no-auth", "--tls", c.tls("gateway/web"), "--tls-cert", pair[0],
                                          "--tls-key", pair[1]))
    else:
        g = Gateway(c, "clear")
    ports[g.port] = "gateway"
    capture = Capture(ports)
    c.start()
    g.wait_ready()
    use(c, g, "tls" if tls else "clear")
    wait_for("bytes on every port", 10, lambda: all(len(b) > 1000 for b in capture.bytes.values()))
    capture.stop()
    equal(g.process.end(), 0, "a clean end")
    return {what: bytes(capture.bytes[port]) for port, what in ports.items()}


def main(t):
    t.need_root()
    # A network of our own, in which nobody else speaks.
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
    seen = look(t, False)
    check(all(w in seen["gateway"] for w in WORDS), "the gateway speaks in the clear")
    for role in ("raft", "clients"):
        of_role = [b for what, b in seen.items() if what.startswith(role)]
        check(all(any(w in b for b in of_role) for w in WORDS), f"{role} speak in the clear")
    for what, stream in look(t, True).items():
        for word in WORDS + (b"telltale", b"HTTP/1"):
            check(word not in stream, f"{what}: {word.decode()} in the clear")


if __name__ == "__main__":
    run_case(main)
