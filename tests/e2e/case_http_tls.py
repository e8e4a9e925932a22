#!/usr/bin/python3
"""The gateway's TLS and options: only TLS 1.3, a certificate that changes without a dropped connection,
hang-ups that are seen through it; and what it refuses to start with."""
# seconds: 15
import datetime
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import Process, check, equal, run_case, wait_for  # noqa: E402
from gateway import Gateway, read_answer, request  # noqa: E402

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError:
    x509 = None


def make_certificate(directory, name, days=2):
    """Self-signed for localhost; (certificate, key)."""
    cert, key = (os.path.join(directory, f"{name}.{what}") for what in ("crt", "key"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", str(days), "-subj", f"/CN={name}", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
                   check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    return cert, key


class TlsGateway(Gateway):
    ca = None

    def context(self):
        c = ssl.create_default_context(cafile=self.ca)
        return c

    def connection(self, timeout=30):
        return http.client.HTTPSConnection("localhost", self.port, timeout=timeout,
                                           context=self.context())

    def socket(self, timeout=30):
        return self.context().wrap_socket(super().socket(timeout), server_hostname="localhost")


def name_of(s):
    return dict(x[0] for x in s.getpeercert()["subject"])["commonName"]


def install(source, target):
    os.replace(source[0], target[0])
    os.replace(source[1], target[1])


def tls(t, c):
    pair = make_certificate(t.directory, "first")
    TlsGateway.ca = os.path.join(t.directory, "ca.pem")
    with open(pair[0]) as f, open(TlsGateway.ca, "w") as ca:
        ca.write(f.read())
    g = TlsGateway(c, "tls", options=("--no-auth", "--tls-cert", pair[0], "--tls-key", pair[1]))
    g.wait_ready()
    equal(g.acquire("tls/x", "me").status, 200, "acquire")
    s = g.socket()
    equal((s.version(), name_of(s)), ("TLSv1.3", "first"), "the session")

    old = ssl.create_default_context(cafile=TlsGateway.ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        old.wrap_socket(Gateway.socket(g), server_hostname="localhost")
        check(False, "TLS 1.2 was accepted")
    except (ssl.SSLError, ConnectionError):
        pass
    plain = Gateway.socket(g)
    plain.sendall(request("GET", "/healthz"))
    plain.settimeout(20)
    try:
        got = plain.recv(1000)
    except ConnectionError:
        got = b""
    check(b"HTTP/1" not in got, f"plain HTTP was answered: {got!r}")
    half = [Gateway.socket(g) for _ in range(20)]  # Handshakes that never go on.
    for h in half:
        h.sendall(b"\x16\x03\x01\x02\x00\x01")
    equal(g.get("/locks/tls/x").status, 200, "others work")

    waiter = g.send_acquire("tls/x", "you", wait=60)
    wait_for("the waiter", 10, lambda: g.get("/locks/tls/x").json["waiters"] == 1)
    waiter.close()
    wait_for("the hang-up to be seen", 10, lambda: g.get("/locks/tls/x").json["waiters"] == 0)
    waiter = g.send_acquire("tls/x", "you", wait=60)
    wait_for("the waiter", 10, lambda: g.get("/locks/tls/x").json["waiters"] == 1)

    second = make_certificate(t.directory, "second")
    with open(second[0]) as f, open(TlsGateway.ca, "a") as ca:
        ca.write(f.read())
    install(second, pair)
    g.process.signal(signal.SIGHUP)

    def presented():
        with g.socket() as fresh:
            return name_of(fresh)

    wait_for("the new certificate", 10, lambda: presented() == "second")
    s.sendall(request("GET", "/locks/tls/x"))
    equal(read_answer(s).status, 200, "a connection from before")
    equal(g.release("tls/x", "me").status, 200, "release")
    equal(read_answer(waiter).status, 200, "a waiter from before")
    with open(pair[0], "w") as f:
        f.write("nonsense")
    g.process.signal(signal.SIGHUP)
    wait_for("it to be refused", 10, lambda: "the certificate stays as it was" in g.process.text())
    told = next(x for x in g.process.text().splitlines() if "stays as it was" in x)
    check(pair[0] in told, f"the line doesn't say what is wrong with which file: {told}")
    equal(presented(), "second", "the certificate behind a bad one")
    big = g.get("/locks/tls/x", headers={"Authorization": "Bearer " + "x" * 16000})
    equal(big.status, 200, "a head of 16 kB")
    for h in (*half, plain, s, waiter):
        h.close()
    equal(g.process.end(), 0, "a clean end")


def make_brief(directory, name, seconds):
    """A self-signed certificate that ends soon."""
    key = ec.generate_private_key(ec.SECP256R1())
    name_of_it = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.utcnow()
    cert = x509.CertificateBuilder(
        issuer_name=name_of_it, subject_name=name_of_it, public_key=key.public_key(), serial_number=1,
        not_valid_before=now - datetime.timedelta(minutes=1),
        not_valid_after=now + datetime.timedelta(seconds=seconds)).sign(key, hashes.SHA256())
    files = [os.path.join(directory, f"{name}.{what}") for what in ("crt", "key")]
    pem = serialization.Encoding.PEM
    for file, data in zip(files, (cert.public_bytes(pem), key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))):
        with open(file, "wb") as f:
            f.write(data)
    return files


def expiry(t, c):
    """The end of its certificate is told: before, and when it has come."""
    if x509 is None:
        return
    pair = make_brief(t.directory, "brief", 4)
    g = TlsGateway(c, "brief", options=("--no-auth", "--tls-cert", pair[0], "--tls-key", pair[1]))
    soon, ended = ('msg="a certificate ends soon" certificate=https', 'msg="a certificate has expired')
    wait_for("the warning", 20, lambda: soon in g.process.text())
    wait_for("the end", 20, lambda: ended in g.process.text())
    install(make_certificate(t.directory, "third", days=400), pair)
    g.process.signal(signal.SIGHUP)
    wait_for("the new one", 10, lambda: "the certificate was read again" in g.process.text())
    time.sleep(1.2)
    equal([g.process.text().count(x) for x in (soon, ended)], [1, 1], "what was told")
    equal(g.process.end(), 0, "a clean end")


def refused(t, options, code, word):
    p = Process(t, "gateway-refused", [t.program("holdfast-gateway"), *options])
    equal(p.wait(20), code, f"{options}: {p.last_text()}")
    check(word in p.last_text(), f"{options}: '{word}' is not in: {p.last_text()}")


def bad_options(t, c):
    base = ["--cluster", c.addresses()]
    here = [*base, "--listen", "127.0.0.1:0"]
    first, second = make_certificate(t.directory, "a"), make_certificate(t.directory, "b")
    missing = os.path.join(t.directory, "missing")
    auth = ["--jwks", missing, "--issuer", "i", "--audience", "a", "--policy", missing]
    for options, code, word in (
            ([], 2, "--listen"), (["--listen", "127.0.0.1:0"], 2, "--cluster"), (here, 2, "--jwks"),
            ([*base, "--listen", "0.0.0.0:0", "--no-auth"], 2, "loopback"),
            ([*base, "--listen", "[::]:0", "--no-auth", "--insecure"], 2, "loopback"),
            ([*base, "--listen", "0.0.0.0:0", *auth], 2, "--tls-cert"),
            ([*here, "--no-auth", *auth], 2, "exclude"), ([*here, *auth[:-2]], 2, "--policy"),
            ([*here, *auth], 1, "missing"),
            ([*here, "--no-auth", "--tls-cert", first[0]], 2, "--tls-key"),
            ([*here, "--no-auth", "--tls-cert", first[0], "--tls-key", second[1]], 1, second[1]),
            ([*here, "--no-auth", "--tls-cert", missing, "--tls-key", first[1]], 1, missing),
            ([*base, "--listen", "nonsense", "--no-auth"], 2, "HOST:PORT"),
            ([*base, "--listen", "127.0.0.1:99999", "--no-auth"], 2, "HOST:PORT"),
            (["--cluster", "nonsense", "--listen", "127.0.0.1:0", "--no-auth"], 1, "nonsense"),
            ([*here, "--no-auth", "--timeout", "0"], 2, "--timeout"),
            ([*here, "--no-auth", "--connections-max", "3"], 2, "--connections-max"),
            ([*here, "--no-auth", "--rate-owner", "many"], 2, "--rate-owner"),
            ([*here, "--no-auth", "--unknown"], 2, "unknown"), ([*here, "--no-auth", "x"], 2, "x")):
        refused(t, options, code, word)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(t, [*base, "--no-auth", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"], 1,
                "in use")
    for option, word in (("--help", "--listen"), ("--version", "holdfast-gateway")):
        done = subprocess.run([t.program("holdfast-gateway"), option], capture_output=True, text=True,
                              timeout=20, check=True)
        check(word in done.stdout, option)


def without_cluster(t, c):
    """It starts before the cluster does, and waits for it."""
    for node in c.nodes.values():
        node.kill()
    g = Gateway(c, "early", options=("--no-auth", "--timeout", "1s"))
    wait_for("it to serve", 20, lambda: alive(g))
    equal(g.get("/readyz").status, 503, "not ready")
    equal(g.acquire("early/x", "me").status, 503, "no cluster")
    for node in c.nodes.values():
        node.start()
    g.wait_ready()
    equal(g.acquire("early/x", "me").status, 200, "the cluster is there")
    for node in c.nodes.values():
        node.kill()
    began = time.monotonic()
    equal(g.process.end(30), 0, "a clean end without the cluster")
    check(time.monotonic() - began < 25, "it took too long")


def alive(g):
    try:
        return g.get("/healthz").status == 200
    except OSError:
        return False


def main(t):
    c = t.cluster(1).start()
    tls(t, c)
    expiry(t, c)
    bad_options(t, c)
    without_cluster(t, c)


if __name__ == "__main__":
    run_case(main)
