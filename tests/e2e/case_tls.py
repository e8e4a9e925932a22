#!/usr/bin/python3
"""TLS between nodes, mounts and the CLI: who is let in, who isn't, and renewal without a break."""
# seconds: 25
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import wire  # noqa: E402
from cluster import check, equal, run_case, wait_for  # noqa: E402


def refused(c, certificate, what):
    """A node closes the connection before it says anything."""
    try:
        with wire.Client(c.host, c.nodes[1].client_port, 5, certificate):
            pass
    except (OSError, wire.Failure, EOFError):
        return
    check(False, f"{what} was let in")


def handshake(c, port, minimum=None, maximum=None):
    context = ssl.create_default_context(cafile=c.certificates + "/ca.crt")
    context.check_hostname = False
    context.set_alpn_protocols(["holdfast/1"])
    context.load_cert_chain(c.tls("client/test") + "/tls.crt", c.tls("client/test") + "/tls.key")
    if minimum:
        context.minimum_version = minimum
    if maximum:
        context.maximum_version = maximum
    with socket.create_connection((c.host, port), 5) as s, context.wrap_socket(s) as t:
        return t.version(), t.selected_alpn_protocol()


def strangers(t, c):
    other = os.path.join(t.directory, "other")
    subprocess.run([t.program("holdfast"), "cert", other, "client/eve", "node/2", "mount/host-a"],
                   check=True, stdout=subprocess.DEVNULL, timeout=30)
    refused(c, other + "/client-eve", "a client of another authority")
    bare = os.path.join(t.directory, "bare")
    os.mkdir(bare)
    for name in ("ca.crt", "tls.crt", "tls.key"):
        shutil.copy(c.tls("client/test") + "/" + name, bare)
    shutil.copy(other + "/client-eve/tls.crt", bare + "/tls.crt")
    shutil.copy(other + "/client-eve/tls.key", bare + "/tls.key")
    refused(c, bare, "a certificate that another authority signed")
    try:
        with wire.Client(c.host, c.nodes[1].client_port, 3):
            check(False, "a client in the clear was let in")
    except (OSError, wire.Failure, EOFError):
        pass
    for port in (c.nodes[1].client_port, c.nodes[1].raft_port):
        equal(handshake(c, port), ("TLSv1.3", "holdfast/1"), "TLS version and protocol")
        try:
            handshake(c, port, maximum=ssl.TLSVersion.TLSv1_2)
            check(False, "TLS 1.2 was accepted")
        except (ssl.SSLError, OSError):
            pass
        with socket.create_connection((c.host, port), 5) as s:
            s.sendall(os.urandom(5000))
            s.settimeout(10)
            try:
                while s.recv(4096):
                    pass
            except ConnectionError:
                pass
    # A mount with a foreign certificate is told so, and does not hang.
    directory = os.path.join(t.directory, "foreign")
    os.mkdir(directory)
    done = subprocess.run([t.program("mount.holdfast"), c.addresses(), directory, "-f", "-o",
                           f"timeout=2s,tls={other}/mount-host-a"], capture_output=True, text=True,
                          timeout=40, check=False)
    equal(done.returncode, 32, "a mount with a foreign certificate: " + done.stderr[-500:])
    check("certificate" in done.stderr, f"it says: {done.stderr[-500:]}")


def rights(c):
    """What certificates allow."""
    mount = c.tls("mount/host-x")
    with wire.Client(c.host, c.wait_leader().client_port, 5, mount, "host-x") as client:
        check(client.open_session(5000, host="host-x"), "a mount opens a session for its host")
    with wire.Client(c.host, c.wait_leader().client_port, 5, mount, "host-y") as client:
        try:
            client.open_session(5000, host="host-y")
            check(False, "a mount speaks for another host")
        except wire.Failure as e:
            check("another host" in str(e), str(e))
    for arguments in (["leader", "transfer"], ["snapshot", "save", "/dev/null"],
                      ["member", "demote", "3"]):
        done = subprocess.run([c.test.program("holdfast"), *arguments, "--cluster", c.addresses(),
                               "--tls", mount, "--timeout", "5s"], capture_output=True, text=True,
                              timeout=30, check=False)
        check(done.returncode != 0 and "client" in done.stderr,
              f"{arguments} by a mount: {done.returncode} {done.stderr}")


def wrong_node(t, c):
    """A node with another node's certificate does not start, nor one that can't be read."""
    for tls, word in ((c.tls("node/2"), "node/2"), (c.tls("client/test"), "client/test"),
                      ("/nonexistent", "ca.crt")):
        argv = [t.program("holdfastd"), "--id", "9", "--data", t.directory + "/d9", "--member",
                f"9=127.0.0.1:{t.free_port('127.0.0.1')},127.0.0.1:{t.free_port('127.0.0.1')}",
                "--tls", tls]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        check(done.returncode in (1, 2) and word in done.stderr,
              f"--tls {tls}: {done.returncode} {done.stderr}")


class Load:
    """Locks and unlocks until it is told to stop; notes the longest pause and every error."""

    def __init__(self, mount):
        self.mount, self.n, self.errors, self.stopped = mount, 0, [], False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stopped:
            try:
                os.close(os.open(self.mount.path("load"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                os.unlink(self.mount.path("load"))
                self.n += 1
            except OSError as e:
                self.errors.append(e)

    def stop(self):
        self.stopped = True
        self.thread.join(30)
        return self.n


def renewal(t, c, mount):
    """New certificates under load: SIGHUP drops no connection, and new ones use the new ones."""
    load = Load(mount)
    wait_for("load", 20, lambda: load.n > 20)
    fresh = os.path.join(t.directory, "fresh")
    for name in ("ca.crt", "ca.key"):
        os.makedirs(fresh, exist_ok=True)
        shutil.copy(os.path.join(c.certificates, name), fresh)
    identities = [f"node/{i}" for i in c.nodes] + ["mount/host-a"]
    subprocess.run([t.program("holdfast"), "cert", fresh, *identities], check=True,
                   stdout=subprocess.DEVNULL, timeout=30)
    for identity in identities:
        name = identity.replace("/", "-")
        for file in ("tls.key", "tls.crt"):
            os.replace(os.path.join(fresh, name, file), os.path.join(c.certificates, name, file))
    for node in c.nodes.values():
        node.process.signal(signal.SIGHUP)
    mount.process.signal(signal.SIGHUP)
    for process in [n.process for n in c.nodes.values()] + [mount.process]:
        wait_for("the certificates to be read", 10, lambda p=process: "certificate loaded" in
                 p.text().split("serving")[-1] or "certificates reloaded" in p.text())
    before = load.n
    wait_for("load to go on", 20, lambda: load.n > before + 20)
    reconnects = sum(n.process.text().count("peer connection lost") for n in c.nodes.values())
    equal(reconnects, 0, "connections between nodes lost by the renewal")
    # A file that can't be used: the old one stays.
    with open(os.path.join(c.certificates, "node-1", "tls.crt"), "w", encoding="utf-8") as f:
        f.write("no certificate\n")
    c.nodes[1].process.signal(signal.SIGHUP)
    wait_for("the refusal", 10, lambda: "not reloaded" in c.nodes[1].process.text())
    with c.nodes[1].connect():
        pass
    n = load.stop()
    equal(load.errors, [], "errors of the load")
    print(f"{n} cycles meanwhile, no error")


def main(t):
    c = t.cluster(3, tls=True).start()
    a, b = c.mount("a"), c.mount("b")
    equal(os.stat(c.certificates + "/ca.key").st_mode & 0o777, 0o600, "mode of ca.key")
    equal(os.stat(c.tls("node/1") + "/tls.key").st_mode & 0o777, 0o600, "mode of tls.key")
    fd = os.open(a.path("x"), os.O_CREAT | os.O_EXCL | os.O_RDWR)
    equal(b.read("x")["host"], "host-a", "the holder's host is the one of its certificate")
    check(b.try_acquire("x") is None, "held, seen through another mount")
    os.close(fd)
    os.unlink(a.path("x"))
    equal(c.cli_json("status")["leader"] in (1, 2, 3), True, "status over TLS")
    strangers(t, c)
    rights(c)
    wrong_node(t, c)
    renewal(t, c, a)
    # kill -9 of the leader, and an image to a node that was away: all of it over TLS.
    leader = c.wait_leader()
    leader.kill()
    began = time.monotonic()
    while b.try_acquire("after") is None:
        check(time.monotonic() - began < 20, "no lock after the leader's death")
    c.cli("release", "after", "--token", str(b.token("after")))


if __name__ == "__main__":
    run_case(main)
