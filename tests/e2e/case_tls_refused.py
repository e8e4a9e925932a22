#!/usr/bin/python3
"""Who is not let in by a node, on its clients' port and on the nodes' port: no certificate, one of a
foreign authority, one that is revoked, one that has ended.  Each is refused, and the log says why."""
# seconds: 8
# sanitized: no
import datetime
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import wire  # noqa: E402
from case_tls_strangers import peer_hello  # noqa: E402
from cluster import Skip, check, run_case, wait_for  # noqa: E402

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
except ImportError:
    x509 = None


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def write(data, *path):
    with open(os.path.join(*path), "wb") as f:
        f.write(data)


class Authority:
    """The cluster's own, for certificates that `holdfast cert` does not make."""

    def __init__(self, directory):
        self.cert = x509.load_pem_x509_certificate(read(directory, "ca.crt"))
        self.key = serialization.load_pem_private_key(read(directory, "ca.key"), None)

    def again(self, cert, starts, ends):
        """The same certificate for another time."""
        builder = x509.CertificateBuilder(
            issuer_name=cert.issuer, subject_name=cert.subject, public_key=cert.public_key(),
            serial_number=x509.random_serial_number(), not_valid_before=starts, not_valid_after=ends)
        for extension in cert.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(self.key, hashes.SHA256())

    def revoke(self, certs):
        now = datetime.datetime.utcnow()
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self.cert.subject, last_update=now - datetime.timedelta(minutes=1),
            next_update=now + datetime.timedelta(days=1))
        for cert in certs:
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(
                cert.serial_number, now - datetime.timedelta(minutes=1)).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def is_refused(c, port, directory):
    """Does the node answer the handshake with an alert?  (In TLS 1.3 the client reads it behind its own end
    of the handshake; who is let in and says nothing is closed without one.)"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(c.certificates + "/ca.crt")
    context.set_alpn_protocols(["holdfast/1"])
    if directory is not None:
        context.load_cert_chain(directory + "/tls.crt", directory + "/tls.key")
    try:
        with socket.create_connection((c.host, port), 20) as plain, context.wrap_socket(plain) as s:
            s.recv(1)
            return False
    except ssl.SSLError as e:
        return "alert" in str(e).lower()


def refused(c, as_client, as_node, what, word):
    """Two certificates, one for each port."""
    node = c.nodes[1]
    for port, directory, name in ((node.client_port, as_client, "clients"), (node.raft_port, as_node, "nodes")):
        seen = len(node.process.text())

        def told(port=port, directory=directory, name=name, seen=seen):
            check(is_refused(c, port, directory), f"{what} was let in on the port for {name}")
            lines = [x for x in node.process.text()[seen:].splitlines() if "TLS connection failed" in x]
            return [x for x in lines if word in x.lower() and "from=127.0.0.1" in x]  # One a second is told.
        wait_for(f"a line about {what} on the port for {name}", 15, told)


def let_in(c, identity):
    with wire.Client(c.host, c.nodes[1].client_port, 5, c.tls(identity)) as client:
        check(client.status()["node_id"] == 1, f"{identity} was not let in")


def main(t):
    if x509 is None:
        raise Skip("python3-cryptography is needed")
    c = t.cluster(1, tls=True).start()
    node = c.nodes[1]
    let_in(c, "client/gone")
    check(peer_hello(c, c.tls("node/2"), 2, 1, False) is not None, "node/2 was not answered")
    refused(c, None, None, "one without a certificate", "certificate is required")
    other = os.path.join(t.directory, "other")
    subprocess.run([t.program("holdfast"), "cert", other, "client/eve", "node/2"], check=True,
                   stdout=subprocess.DEVNULL, timeout=30)
    refused(c, other + "/client-eve", other + "/node-2", "one of a foreign authority", "issuer is unknown")
    authority = Authority(c.certificates)
    now = datetime.datetime.utcnow()
    late = {}
    for identity in ("client/late", "node/2", "gateway/late"):
        late[identity] = os.path.join(t.directory, "late-" + identity.replace("/", "-"))
        shutil.copytree(c.tls(identity), late[identity])
        cert = authority.again(x509.load_pem_x509_certificate(read(late[identity], "tls.crt")),
                               now - datetime.timedelta(days=2), now - datetime.timedelta(hours=1))
        write(cert.public_bytes(serialization.Encoding.PEM), late[identity], "tls.crt")
    refused(c, late["client/late"], late["node/2"], "one that has ended", "expired")
    for program, options in (("holdfast-gateway", ["--listen", "127.0.0.1:0", "--no-auth", "--tls", late["gateway/late"]]),
                             ("holdfast-bench", ["--seconds", "1", "--tls", late["client/late"], "cycle"])):
        done = subprocess.run([t.program(program), "--cluster", c.addresses(), *options], capture_output=True, text=True,
                              timeout=20, check=False)
        check(done.returncode in (1, 2) and "expired" in done.stderr, f"{program}: {done.returncode} {done.stderr}")
    gone = [c.tls("client/gone"), c.tls("node/2")]
    write(authority.revoke([x509.load_pem_x509_certificate(read(d, "tls.crt")) for d in gone]), c.tls("node/1"),
          "ca.crl")
    before = node.process.text().count("certificate loaded")
    node.process.signal(signal.SIGHUP)
    wait_for("the list to be read", 10, lambda: node.process.text().count("certificate loaded") > before)
    refused(c, *gone, "one that is revoked", "revoked")
    let_in(c, "client/good")


if __name__ == "__main__":
    run_case(main)
