#!/usr/bin/python3
"""Audit lines: one for each grant, denial, break and change of policy or members, over HTTP, from mounts and
the CLI; names can't forge lines; files are rotated."""
# seconds: 20
import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import fields  # noqa: E402
from audit import NODES, Audit, told_once  # noqa: E402
from cluster import check, equal, expect_errno, run_case, wait_for  # noqa: E402
from gateway import Gateway  # noqa: E402

from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: E402

NODE_POLICY = {"version": 1,
               "roles": {"all": {"allow": [{"verbs": ["read", "acquire", "break", "admin"], "paths": ["/"]}]},
                         "some": {"allow": [{"verbs": ["read", "acquire"], "paths": ["/jobs"]}]}},
               "bindings": [{"certificate": "client/test", "roles": ["all"]},
                            {"certificate": "gateway/web", "roles": ["all"]},
                            {"certificate": "mount/*", "roles": ["some"]}]}
HTTP_POLICY = {"version": 1,
               "roles": {"jobs": {"allow": [{"verbs": ["read", "acquire"], "paths": ["/jobs"]}]}},
               "bindings": [{"subject": "*", "roles": ["jobs"]}]}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs tokens with a key of its own, and publishes that."""

    def __init__(self, t):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file = os.path.join(t.directory, "jwks.json")
        n = self.key.public_key().public_numbers()
        with open(self.file, "w", encoding="utf-8") as f:
            json.dump({"keys": [{"kid": "k", "use": "sig", "kty": "EC", "alg": "ES256", "crv": "P-256",
                                 "x": b64(n.x.to_bytes(32, "big")), "y": b64(n.y.to_bytes(32, "big"))}]}, f)

    def bearer(self, subject):
        now = int(time.time())
        claims = {"iss": "https://issuer", "aud": "holdfast", "sub": subject, "iat": now, "exp": now + 600}
        text = b64(json.dumps({"alg": "ES256", "kid": "k", "typ": "at+jwt"}).encode()) + "." + \
            b64(json.dumps(claims).encode())
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return {"Authorization": f"Bearer {text}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"}


def write(file, content):
    with open(file + ".new", "w", encoding="utf-8") as f:
        f.write(content if isinstance(content, str) else json.dumps(content))
    os.rename(file + ".new", file)


def over_http(g, audit, issuer):
    alice, bob = issuer.bearer("alice"), issuer.bearer('bob" event=forged token=1 \\')
    a = g.acquire("jobs/h", "worker", headers=dict(alice, traceparent=f"00-{0xa1:032x}-00f067aa0ba902b7-00"))
    equal(a.status, 200, "acquire")
    line = audit.one(NODES, event="grant", path="jobs/h")
    for key, value in (("subject", "alice"), ("owner", "http/alice/worker"), ("token", a.json["token"]),
                       ("mode", "exclusive"), ("certificate", "gateway/web"), ("trace_id", f"{0xa1:032x}"),
                       ("ttl_ms", 30000), ("by", "node")):
        equal(line[key], str(value).encode(), f"{key} of {line}")
    check(line["client"].startswith(b"127.0.0.1:"), f"{line}")
    # A subject and names that would like to be lines.
    evil = 'jobs/x\n" event=break path=y\r\x1b[2J\\'
    a = g.acquire(evil, "me\nts=0", headers=bob)
    equal(a.status, 200, f"acquire {a}")
    line = audit.one(NODES, event="grant", token=a.json["token"])
    equal((line["path"], line["subject"]), (evil.encode(), b'bob" event=forged token=1 \\'), "as they are, in quotes")
    # Refused: without a token, by the policy, another subject's hold (by name, and by its token).
    equal(g.acquire("jobs/h", "worker").status, 401, "no token")
    line = audit.one(("web",), event="denied", what="acquire", by="gateway")
    check(b"token" in line["reason"] and line["client"].startswith(b"127.0.0.1:") and "subject" not in line, f"{line}")
    equal(g.acquire("frozen/x", "me", headers=alice).status, 403, "not allowed")
    line = audit.one(("web",), event="denied", path="frozen/x")
    equal((line["subject"], line["what"]), (b"alice", b"acquire"), "who and what")
    check(b"nothing allows" in line["reason"] and len(line["trace_id"]) == 32, f"{line}")
    equal(g.release("jobs/h", "worker", headers=issuer.bearer("carol")).status, 403, "another's")
    line = audit.one(("web",), event="denied", subject="carol")
    equal((line["what"], line["path"]), (b"release", b"jobs/h"), "a release of another's hold")
    token = int(audit.one(NODES, event="grant", path="jobs/h")["token"])
    equal(g.renew("jobs/h", "worker", token=token, headers=issuer.bearer("dave")).status, 403, "by its token")
    line = audit.one(NODES, event="denied", what="renew", subject="dave")
    equal((line["token"], line["owner"]), (str(token).encode(), b"http/dave/worker"), "the node refused that")
    equal([x for x in audit.lines("web") if x.get("subject") == b"dave"], [], "and only the node tells")
    equal([x for x in audit.lines(*NODES, "web") if x["event"] in (b"forged", b"y")], [], "forged")


def from_mounts(c, audit, a, b):
    os.makedirs(a.path("jobs"), exist_ok=True)
    fd = a.acquire("jobs/m")
    line = audit.one(NODES, event="grant", path="jobs/m")
    equal((line["certificate"], line["pid"], line["uid"]), (b"mount/host-a", str(os.getpid()).encode(), b"0"), "who")
    expect_errno(13, lambda: b.acquire("other"), "not in the policy")
    line = audit.one(NODES, event="denied", path="other")
    equal((line["certificate"], line["what"]), (b"mount/host-b", b"read"), f"{line}")  # Its LOOKUP.
    # One who waits is told of when he is granted, as himself.
    waiter = subprocess.Popen(["flock", b.path("jobs/m"), "true"], env=dict(os.environ))
    wait_for("a waiter", 20, lambda: a.read("jobs/m") and a.read("jobs/m")["waiters"] == "1")
    os.rename(a.path("jobs/m"), a.path("jobs/n"))
    line = audit.one(NODES, event="rename", path="jobs/m")
    equal((line["path2"], line["certificate"]), (b"jobs/n", b"mount/host-a"), "renamed")
    equal(waiter.wait(30), 0, "the waiter")
    line = audit.one(NODES, event="grant", path="jobs/m", waited="yes")
    equal((line["certificate"], line["mode"]), (b"mount/host-b", b"exclusive"), f"{line}")
    f = os.open(a.path("jobs/c"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(f, fcntl.LOCK_SH)
    fcntl.flock(f, fcntl.LOCK_EX)
    modes = [audit.one(NODES, event="grant", path="jobs/c", mode="shared"),
             audit.one(NODES, event="grant", path="jobs/c", mode="exclusive", converted="yes")]
    check(all(x["certificate"] == b"mount/host-a" for x in modes), f"{modes}")
    os.close(f)
    # An operator.
    token = a.token("jobs/n")
    c.cli("break", "jobs/n", "--token", token)
    line = audit.one(NODES, event="break", path="jobs/n")
    equal((line["token"], line["certificate"]), (str(token).encode(), b"client/test"), "broken by")
    check(b"host-a" in line["owner"], f"whose: {line}")
    os.close(fd)


def gone(c, audit):
    """Who hangs up before his answer is known all the same."""
    client = c.wait_leader().connect()
    client.open_session()
    client.send_request(3, client.command_body("acquire", ["hit/run"], f2=1, f7="driver", f9=2, f13=30000))
    client.close()
    line = audit.one(NODES, event="grant", path="hit/run")
    check(line["client"].startswith(b"127.0.0.1:") and line["certificate"] == b"client/test", f"{line}")


def changes(t, c, audit, g, node_policy, http_policy):
    """Policies, members, snapshots, strangers."""
    for n in NODES:
        equal(audit.one((n,), event="policy", what="loaded")["file"], node_policy.encode(), "a node's policy")
    equal(audit.one(("web",), event="policy", what="loaded")["file"], http_policy.encode(), "the gateway's")
    for file, content, what in ((node_policy, NODE_POLICY, "reloaded"), (http_policy, "{", "refused"),
                                (node_policy, "{", "refused"), (http_policy, HTTP_POLICY, "reloaded"),
                                (node_policy, NODE_POLICY, None)):
        write(file, content)
        for p in ([n.process for n in c.nodes.values()] if file == node_policy else [g.process]):
            p.signal(signal.SIGHUP)
        for n in (NODES if file == node_policy else ("web",)):
            if what:
                line = audit.one((n,), event="policy", what=what)
                equal("reason" in line, what == "refused", f"{line}")
    c.cli("snapshot", "save", os.path.join(t.directory, "saved.db"))
    line = audit.one(NODES, event="admin", what="SNAPSHOT")
    equal((line["certificate"], line["result"]), (b"client/test", b"done"), f"{line}")
    c.cli("member", "add", "9=127.0.0.1:1,127.0.0.1:2")
    line = audit.one(NODES, event="admin", what="MEMBER_ADD")
    equal((line["member"], line["raft_address"], line["result"]), (b"9", b"127.0.0.1:1", b"done"), f"{line}")
    equal(c.cli("member", "remove", "77", ok=False).returncode, 1, "no such member")
    line = audit.one(NODES, event="admin", what="MEMBER_REMOVE", member="77")
    check(line["result"] == b"failed" and line["reason"], f"{line}")
    c.cli("member", "remove", "9")
    audit.one(NODES, event="admin", what="MEMBER_REMOVE", member="9", result="done")
    # Somebody with a certificate of another authority.
    other = os.path.join(t.directory, "foreign")
    subprocess.run([t.program("holdfast"), "cert", other, "client/mallory"], check=True, stdout=subprocess.DEVNULL,
                   timeout=30)
    shutil.copy(os.path.join(c.tls("client/test"), "ca.crt"), os.path.join(other, "client-mallory"))
    done = subprocess.run([t.program("holdfast"), "ls", "--cluster", c.nodes[1].client_address, "--timeout", "1s",
                           "--tls", os.path.join(other, "client-mallory")], capture_output=True, timeout=30, check=False)
    check(done.returncode != 0, "mallory got in")
    line = wait_for("mallory's line", 20, lambda: [x for x in audit.lines("1") if x.get("what") == b"connect"])[0]
    check(line["event"] == b"denied" and line["reason"] and line["client"].startswith(b"127.0.0.1:"), f"{line}")


def rotated(c, audit, g, issuer):
    """logrotate: moved away, SIGHUP; nothing is lost or told twice, and a restart knows where it was."""
    alice = issuer.bearer("alice")
    for n, node in c.nodes.items():
        os.rename(audit.path(n), audit.path(n) + ".1")
        node.process.signal(signal.SIGHUP)
    os.rename(audit.path("web"), audit.path("web") + ".1")
    g.process.signal(signal.SIGHUP)
    wait_for("the gateway to open a new file", 20, lambda: os.path.exists(audit.path("web")))
    equal(g.acquire("new", "me").status, 401, "no token")
    wait_for("a line in it", 20, lambda: b"event=denied" in open(audit.path("web"), "rb").read())
    for n in c.nodes:
        wait_for(f"node {n} to open a new file", 20, lambda n=n: os.path.exists(audit.path(n)) and any(
            x["event"] == b"open" for x in fields.lines(open(audit.path(n), "rb").read())))
    equal(g.acquire("jobs/new", "me", headers=alice).status, 200, "acquire")
    audit.one(NODES, event="grant", path="jobs/new")
    with open(audit.path(c.leader().id), "rb") as f:
        check(any(x.get("path") == b"jobs/new" for x in fields.lines(f.read())), "it is in the new file")
    leader = c.leader()
    leader.kill()
    leader.start(options=leader.options)
    c.wait_leader()
    leader.wait_ready()
    wait_for("the gateway", 30, lambda: g.acquire("jobs/newer", "me", headers=alice).status == 200)
    told_once(c, audit, "over rotation and kill -9")


def main(t):
    audit, issuer = Audit(t), Issuer(t)
    node_policy, http_policy = (os.path.join(t.directory, n) for n in ("nodes.json", "http.json"))
    write(node_policy, NODE_POLICY)
    write(http_policy, HTTP_POLICY)
    c = t.cluster(3, tls=True)
    for node in c.nodes.values():
        node.options = ("--audit", audit.path(node.id), "--policy", node_policy)
        node.start(options=node.options)
    c.wait_leader()
    g = Gateway(c, "web", options=("--tls", c.tls("gateway/web"), "--jwks", issuer.file, "--issuer", "https://issuer",
                                   "--audience", "holdfast", "--policy", http_policy, "--audit", audit.path("web")))
    g.wait_ready()
    mounts = [c.mount(n, options="ttl=30s,timeout=5s,dircache=0") for n in ("a", "b")]
    over_http(g, audit, issuer)
    from_mounts(c, audit, *mounts)
    gone(c, audit)
    changes(t, c, audit, g, node_policy, http_policy)
    rotated(c, audit, g, issuer)
    for m in mounts:
        equal(m.unmount(), 0, "unmounted")
    equal(g.process.end(), 0, "a clean end")
    written = sum(n.status()["metrics"]["audit_lines"] for n in c.nodes.values())
    check(written > 10 and not any(n.status()["metrics"]["audit_dropped"] for n in c.nodes.values()), f"{written}")
    # Standard error is a file as well.
    alone = c.nodes[1]
    equal(alone.process.end(), 0, "a clean end")
    alone.start(options=("--audit", "-", "--policy", node_policy))
    wait_for("lines among the log's", 20, lambda: "event=start by=node" in alone.process.last_text())


if __name__ == "__main__":
    run_case(main)
