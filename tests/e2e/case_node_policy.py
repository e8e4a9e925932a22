#!/usr/bin/python3
"""holdfastd --policy: what mounts, the CLI, a gateway and bare connections may do by their certificates;
SIGHUP changes it at once and drops nobody; a bad policy is refused with its line."""
# seconds: 20
import errno
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import wire  # noqa: E402
from cluster import check, equal, expect_errno, run_case, wait_for  # noqa: E402
from gateway import Gateway, problem  # noqa: E402

ANYWHERE = 2


def policy(**changed):
    """Certificates by name ("mount/a"), each with a role of its own: (verbs, paths)..."""
    rights = {
        "mount/host-a": [("read acquire", "/web /ops/deep/a")],
        "mount/host-b": [("read", "/"), ("acquire", "/db")],
        "gateway/api": [("read acquire", "/api"), ("read", "/web")],
        "client/alice": [("read", "/web"), ("acquire", "/alice")],
        "client/eve": [("acquire", "/eve"), ("read", "/eve")],
        "client/root-reader": [("read", "/")],
        "client/test": [("read acquire break admin", "/")],
    }
    rights.update(changed)
    roles = {name: {"allow": [{"verbs": v.split(), "paths": p.split()} for v, p in rules]}
             for name, rules in rights.items()}
    roles["mount/host-b"]["deny"] = [{"verbs": ["read"], "paths": ["/web/hidden"]}]
    roles["client/root-reader"]["deny"] = [{"verbs": ["read"], "paths": ["/db/flock"]}]
    return {"version": 1, "roles": roles,
            "bindings": [{"certificate": name, "roles": [name]} for name in roles]}


def write(file, text):
    with open(file + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(file + ".new", file)


def reload(c, file, text, word):
    """Put a policy there and have all nodes read it."""
    write(file, text)
    before = {n: n.process.text().count(word) for n in c.nodes.values()}
    for node in c.nodes.values():
        node.process.signal(signal.SIGHUP)
    for node in c.nodes.values():
        wait_for(f"node {node.id}: {word}", 20, lambda n=node: n.process.text().count(word) > before[n])


def lock_errno(fd, operation, what, number=errno.EACCES):
    expect_errno(number, lambda: fcntl.flock(fd, operation), what)


def mounts(a, b):
    """Files: what is allowed works, what is not has its errno, and is not there to be seen."""
    os.mkdir(a.path("web"))
    fd = a.acquire("web/x")
    os.write(fd, b"renew 60s")
    os.mkdir(b.path("db"))
    os.close(b.acquire("db/x"))
    equal(b.read("web/x")["host"], "host-a", "b may read what a holds")
    for name in ("db", "db/x", "ops/deep/b", "webs", "other"):
        expect_errno((errno.EACCES, errno.ENOENT), lambda n=name: os.stat(a.path(n)), f"a: stat {name}")
    expect_errno(errno.EACCES, lambda: os.stat(a.path("db")), "a: stat db")
    expect_errno(errno.EACCES, lambda: a.acquire("db/y"), "a: O_EXCL in db")
    expect_errno(errno.EACCES, lambda: os.mkdir(a.path("new")), "a: mkdir in the root")
    expect_errno(errno.EACCES, lambda: os.unlink(a.path("db/x")), "a: unlink db/x")
    expect_errno(errno.EACCES, lambda: os.rename(a.path("web/x"), a.path("db/z")), "a: rename out")
    expect_errno(errno.EACCES, lambda: os.link(a.path("web/x"), a.path("db/z")), "a: link out")
    os.rename(a.path("web/x"), a.path("web/y"))
    os.link(a.path("web/y"), a.path("web/x"))
    equal(sorted(n for n in os.listdir(a.dir) if n != ".holdfast"), ["web"], "a: ls")
    equal(sorted(n for n in os.listdir(b.dir) if n != ".holdfast"), ["db", "web"], "b: ls")
    os.mkdir(a.path("web/hidden"))
    equal(sorted(os.listdir(a.path("web"))), ["hidden", "x", "y"], "a: ls web")
    equal(sorted(os.listdir(b.path("web"))), ["x", "y"], "b: ls web")
    expect_errno(errno.EACCES, lambda: os.stat(b.path("web/hidden")), "b: stat web/hidden")
    os.rmdir(a.path("web/hidden"))

    # b may read web, not change it.
    expect_errno(errno.EACCES, lambda: b.acquire("web/new"), "b: O_EXCL")
    expect_errno(errno.EACCES, lambda: os.mkdir(b.path("web/d")), "b: mkdir")
    expect_errno(errno.EACCES, lambda: os.chmod(b.path("web"), 0o700), "b: chmod")
    expect_errno(errno.EACCES, lambda: os.rmdir(b.path("web")), "b: rmdir")
    expect_errno(errno.EACCES, lambda: os.rename(b.path("db/x"), b.path("web/z")), "b: rename into")
    shared = os.open(b.path("web/f"), os.O_CREAT | os.O_RDWR)
    lock_errno(shared, fcntl.LOCK_EX | fcntl.LOCK_NB, "b: flock")
    expect_errno(errno.EACCES, lambda: fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB), "b: lockf")
    own = os.open(a.path("web/f"), os.O_CREAT | os.O_RDWR)
    fcntl.lockf(own, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
    asked = fcntl.fcntl(shared, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    equal(struct.unpack("hhqqi4x", asked)[:4], (fcntl.F_WRLCK, 0, 5, 10), "b: F_GETLK")
    os.close(shared)
    os.close(own)
    os.unlink(a.path("web/x"))
    os.unlink(a.path("web/y"))
    os.close(fd)


def cli(c, identity, *words):
    done = subprocess.run([c.test.program("holdfast"), *words, "--cluster", c.addresses(), "--tls",
                           c.tls(identity), "--timeout", "10s"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


def refused(c, identity, sentence, *words):
    code, _, error = cli(c, identity, *words)
    equal(code, 77, f"{identity} {words}: {error}")
    check(sentence in error, f"{identity} {words}: {error}")


def command_line(c, a):
    """The CLI with certificates of clients."""
    fd = a.acquire("web/x")
    alice = "client/alice"
    code, out, error = cli(c, alice, "show", "web/x")
    check(code == 0 and "host-a" in out, f"show: {out}{error}")
    code, out, error = cli(c, alice, "ls", "--json")
    names = re.findall(r'"path": *"([^"]*)"', out)
    equal((code, [n for n in names if not n.startswith("web")]), (0, []), f"alice: ls: {out}{error}")
    check("web/x" in names, f"alice: ls: {out}")
    code, out, _ = cli(c, alice, "acquire", "alice/a", "--ttl", "60s")
    equal(code, 0, "alice: acquire")
    refused(c, alice, "the policy does not let client/alice acquire 'web/y'", "acquire", "web/y")
    refused(c, alice, "client/alice read 'db/x'", "show", "db/x")
    refused(c, alice, "client/alice read 'db", "ls", "db")
    refused(c, alice, "client/alice break", "break", "web/x", "--token", str(a.token("web/x")))
    refused(c, alice, "run the cluster", "leader", "transfer")
    refused(c, alice, "run the cluster", "snapshot", "save", c.test.directory + "/stolen")
    refused(c, alice, "run the cluster", "member", "demote", "3")
    refused(c, "client/nobody", "allows this certificate nothing", "acquire", "x")
    for words in (["status"], ["member", "list"]):
        equal(cli(c, "client/nobody", *words)[0], 0, f"{words} is for everybody")
    c.cli("break", "web/x", "--token", str(a.token("web/x")))
    expect_errno(errno.ESTALE, lambda: os.write(fd, b"renew"), "a broken hold")
    os.close(fd)
    c.cli("snapshot", "save", c.test.directory + "/saved")
    c.cli("leader", "transfer")
    c.wait_leader()


def nobody(c):
    """A mount whose certificate may read nothing says so, and does not mount."""
    directory = os.path.join(c.test.directory, "nobody")
    os.mkdir(directory)
    done = subprocess.run([c.test.program("mount.holdfast"), c.addresses(), directory, "-f", "-o",
                           "timeout=5s,tls=" + c.tls("mount/nobody")], capture_output=True, text=True,
                          timeout=40, check=False)
    equal(done.returncode, 32, done.stderr[-500:])
    check("the policy does not let mount/nobody read the root" in done.stderr, done.stderr[-500:])


def http(c, a):
    g = Gateway(c, "api", options=("--no-auth", "--tls", c.tls("gateway/api"))).wait_ready()
    fd = a.acquire("web/x")
    equal(g.acquire("api/x", "me").status, 200, "the gateway: api/x")
    problem(g.acquire("web/z", "me"), 403, "forbidden", "the gateway: web/z")
    equal(g.get("/locks/web/x").status, 200, "the gateway reads web/x")
    problem(g.get("/locks/db/x"), 403, "forbidden", "the gateway: GET of db/x")
    names = [x["lock_id"] for x in g.get("/locks").json["locks"]]
    equal(names, ["api/x", "web/x"], "the gateway's list")
    page = g.get("/locks?limit=1").json
    names = [x["lock_id"] for x in page["locks"]]
    names += [x["lock_id"] for x in g.get("/locks?limit=1&cursor=" + page["cursor"]).json["locks"]]
    equal(names, ["api/x", "web/x"], "the gateway's list by pages")
    equal(g.release("api/x", "me").status, 200, "release")
    os.unlink(a.path("web/x"))
    os.close(fd)
    equal(g.process.end(), 0, "a clean end")


def denied(function, what):
    try:
        function()
    except wire.Failure as e:
        equal(e.code, "DENIED", what)
        return e.text
    check(False, what + ": done")
    return None


def subscribe(client, session=0, prefixes=(b"",), after=0):
    """Return: is there a gap?"""
    body = wire.field(1, session) + b"".join(wire.varint(2 << 3 | 2) + wire.varint(len(p)) + p
                                             for p in prefixes) + wire.field(3, after)
    return bool(wire.one(wire.decode(wire.one(client.request(5, body), 10)), 2))


def holds_of(client, session):
    """The paths of a session's holds."""
    reply = wire.decode(wire.one(client.request(4, wire.field(1, 5) + wire.field(5, session)), 4))
    return {wire.one(wire.decode(n), 1) for n in reply.get(3, [])}


def show_directory(client, path):
    """(type, number of entries)"""
    node = wire.decode(client.query(1, path)[3][0])
    return wire.one(node, 2), wire.one(node, 9)


def events_until(client, path):
    """The paths of all events until one is about `path`."""
    seen = []
    while path not in seen:
        frame = client.receive()
        for event in wire.decode(wire.one(frame, 5, b"")).get(1, []):
            event = wire.decode(event)
            seen += [wire.one(event, 15, b""), *event.get(16, [])]
    return seen


def bare(c, a, b):
    """Connections that obey no library: followers, other people's sessions, tokens, events."""
    leader = c.wait_leader()
    eve = c.tls("client/eve")
    fd = a.acquire("web/x")
    token = a.token("web/x")
    for node in c.nodes.values():  # Also as a follower.
        with wire.Client(c.host, node.client_port, 10, eve) as client:
            text = denied(lambda x=client: x.tokens(b"web/x"), "eve: SHOW")
            equal(text, "the policy does not let client/eve read 'web/x'", "the sentence")
            denied(lambda x=client: x.query(2, b"web"), "eve: LIST")
            denied(lambda x=client: x.query(3, b"web"), "eve: LIST_PREFIX")
            sessions = [wire.one(wire.decode(s), 2) for s in client.query(4).get(5, [])]
            check(set(sessions) <= {b"client/eve"}, f"eve sees the sessions {sessions}")
    with leader.connect() as root:
        theirs = {wire.one(wire.decode(s), 2): wire.one(wire.decode(s), 1)
                  for s in root.query(4).get(5, [])}
    with wire.Client(c.host, leader.client_port, 10, eve) as client, \
            wire.Client(c.host, leader.client_port, 10, c.tls("client/test")) as root:
        check(client.open_session(host="host-a")["code"] == "ok", "a session")
        own = client.session_id
        hosts = {wire.one(wire.decode(s), 2) for s in client.query(4).get(5, [])}
        equal(hosts, {b"client/eve"}, "a session's host is its certificate's name, whatever was asked for")
        equal(client.acquire(b"eve/x", b"e")["code"], "ok", "eve locks what is hers")
        for name in (b"host-a", b"host-b"):
            client.session_id = theirs[name]
            for op in ("keepalive", "session-close", "acquire"):
                paths = [b"eve/y"] if op == "acquire" else []
                r = client.command(op, paths, f7=b"e", f9=2, f13=1000)
                equal(r["code"], "no session", f"eve: {op} in the session of {name}")
        client.session_id = own
        denied(lambda: client.release(b"web/x", token), "eve: release by token")
        text = denied(lambda: client.command("release", [b"eve/x"], f2=ANYWHERE, f8=token), "anywhere")
        check("web" not in text, f"no name is told: {text}")
        r = client.command("release", [b"eve/x"], f2=ANYWHERE, f8=token + 1000000)
        equal(r["code"], "not owner", "a token that nobody has")
        text = denied(lambda: client.request(4, wire.field(1, 8) + wire.field(6, token)), "TOKEN")
        check("web" not in text, f"no name is told: {text}")
        denied(lambda: holds_of(client, theirs[b"host-a"]), "another's session")
        equal(root.open_session()["code"], "ok", "a session")
        for path in (b"eve/y", b"db/flock"):
            equal(root.command("acquire", [path], f2=1, f7=b"r", f9=2)["code"], "ok", "a session's hold")
        equal(holds_of(root, root.session_id), {b"eve/y", b"db/flock"}, "the holds of one's own session")
        with wire.Client(c.host, leader.client_port, 10, c.tls("client/root-reader")) as reader:
            equal(holds_of(reader, root.session_id), {b"eve/y"}, "the holds that he may read")
        equal(show_directory(client, b""), (2, 0), "the way to what may be read, without a number")
        equal(show_directory(root, b"")[1] > 0, True, "the number of entries")
        check(set(a.read("web/x")) >= {"token"}, "a holds it still")

        # Events: whatever one asks for, only what may be read comes.
        subscribe(client, session=theirs[b"host-a"])
        os.close(a.acquire("web/z"))
        os.unlink(a.path("web/z"))
        equal(root.acquire(b"web/in", b"r")["code"], "ok", "acquire")
        equal(root.command("rename", [b"web/in", b"eve/in"], f7=b"r")["code"], "ok", "rename")
        equal(root.command("rename", [b"eve/in", b"web/out"], f7=b"r")["code"], "ok", "rename")
        equal(root.acquire(b"eve/last", b"r")["code"], "ok", "acquire")
        seen = events_until(client, b"eve/last")
        check(all(p in (b"", b"eve") or p.startswith(b"eve/") for p in seen), f"eve was told of {seen}")
        equal(seen.count(b"eve/in"), 2, "both renames looked like a grant and an end")
    os.unlink(a.path("web/x"))
    os.close(fd)
    with open(a.path(".holdfast/sessions"), encoding="utf-8") as f:
        check(all("host-a" in line for line in f), "a sees its own sessions only")
    with open(b.path(".holdfast/sessions"), encoding="utf-8") as f:
        check("host-a" in f.read(), "b may read everything")


def reconnects(mount):
    with open(mount.path(".holdfast/metrics"), encoding="utf-8") as f:
        return re.search(r"^holdfast_client_reconnects_total (\d+)$", f.read(), re.M).group(1)


def change(c, file, a, b):
    """SIGHUP: new decisions at once, nobody is dropped, what is held can be given back."""
    before = reconnects(a), reconnects(b)
    node = c.wait_leader()
    with node.connect() as client:
        index = client.status()["applied_index"]
        check(not subscribe(client, after=index), "nothing is missing since then")
    held = os.open(a.path("web/f"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    lease = a.acquire("web/x")
    new = policy(**{"mount/host-a": [("read", "/web")],
                    "mount/host-b": [("read acquire", "/web")]})
    reload(c, file, json.dumps(new), "policy reloaded")
    expect_errno(errno.EACCES, lambda: a.acquire("web/n"), "a: O_EXCL")
    expect_errno(errno.EACCES, lambda: os.write(lease, b"renew"), "a: renew")
    expect_errno(errno.EACCES, lambda: os.stat(b.path("db")), "b: stat db")
    equal([n for n in os.listdir(b.dir) if n != ".holdfast"], ["web"], "b: ls")
    wanted = os.open(b.path("web/f"), os.O_CREAT | os.O_RDWR)
    lock_errno(wanted, fcntl.LOCK_EX | fcntl.LOCK_NB, "it is held still", errno.EWOULDBLOCK)
    os.close(held)
    fcntl.flock(wanted, fcntl.LOCK_EX)  # Waits until a has given it back.
    os.write(lease, b"release")
    os.close(lease)
    os.close(b.acquire("web/x"))
    os.unlink(b.path("web/x"))
    os.close(wanted)
    with node.connect() as client:
        check(subscribe(client, after=index), "what was hidden before could be missing")
        check(not subscribe(client, after=client.status()["applied_index"]), "nothing can be missing now")
    # What is bad changes nothing, and is told with its line.
    bad = json.dumps(new, indent=1).replace('"acquire"', '"aquire"', 1)
    line = 1 + bad[:bad.index("aquire")].count("\n")
    reload(c, file, bad, "policy not reloaded")
    for node in c.nodes.values():
        check(f"line {line}: " in node.process.text(), f"node {node.id} tells the line {line}")
    os.close(b.acquire("web/x"))
    expect_errno(errno.EACCES, lambda: a.acquire("web/n"), "a: O_EXCL")
    os.unlink(b.path("web/x"))
    equal((reconnects(a), reconnects(b)), before, "connections that broke")


def start(t, c, file):
    """Options that can't be."""
    def run(*options):
        port = t.free_port("127.0.0.1")
        return subprocess.run(
            [t.program("holdfastd"), "--id", "1", "--data", t.directory + "/d9", "--member",
             f"1=127.0.0.1:{port},127.0.0.1:{t.free_port('127.0.0.1')}", *options],
            capture_output=True, text=True, timeout=20, check=False)
    done = run("--policy", file)
    check(done.returncode == 2 and "--policy needs --tls" in done.stderr, f"without --tls: {done}")
    write(file + ".bad", '{"version": 1,\n"roles": {},\n"rolls": 1}')
    done = run("--tls", c.tls("node/1"), "--policy", file + ".bad")
    check(done.returncode == 2 and "line 3: " in done.stderr, f"a bad policy: {done}")
    done = run("--tls", c.tls("node/1"), "--policy", file + ".none")
    check(done.returncode == 1 and ".none" in done.stderr, f"no policy: {done}")


def main(t):
    file = os.path.join(t.directory, "policy.json")
    write(file, json.dumps(policy()))
    c = t.cluster(3, tls=True, options=("--policy", file)).start()
    a, b = (c.mount(name, options="ttl=60s,timeout=3s") for name in "ab")
    mounts(a, b)
    command_line(c, a)
    nobody(c)
    http(c, a)
    bare(c, a, b)
    change(c, file, a, b)
    start(t, c, file)
    counted = sum(n.status()["metrics"]["denied"] for n in c.nodes.values())
    lines = sum(n.process.text().count('msg="denied"') + n.process.text().count("msg=denied")
                for n in c.nodes.values())
    check(counted >= 30 and 10 <= lines <= counted, f"{counted} denied, {lines} lines")
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
