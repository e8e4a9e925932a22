#!/usr/bin/python3
"""The HTTP API: every call and status, what is malformed, two gateways that behave as one, and locks
over HTTP beside files on a mount."""
# seconds: 25
import datetime
import fcntl
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import boot_ns, check, equal, run_case, wait_for  # noqa: E402
from gateway import Events, Gateway, problem, read_answer, request  # noqa: E402

ACQUIRE = {"lock_id": "t/x", "owner_id": "me", "ttl": 30}


def without(body, name):
    return {k: v for k, v in body.items() if k != name}


def instant(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


def calls(g):
    """Each call with each of its answers."""
    began = time.time()
    a = g.acquire("t/a", "me", ttl=20, note="by hand")
    equal((a.status, a.json["lock_acquired"]), (200, True), f"acquire: {a}")
    equal(a.headers["content-type"], "application/json", "acquire: content type")
    token = a.json["token"]
    check(isinstance(token, int) and token > 0, f"token: {a}")
    check(began + 15 < instant(a.json["expires_at"]) <= time.time() + 20, f"expires_at: {a}")
    check(15000 < a.json["expires_in_ms"] <= 20000, f"expires_in_ms: {a}")
    check(a.json["expires_in_ms"] <= a.json["expires_from_request_ms"] <= 20000, f"{a}")
    again = g.acquire("t/a", "me", ttl=20)
    equal((again.status, again.json["token"]), (200, token), "the same owner gets the same token")
    other = g.acquire("t/a", "you")
    equal(other.status, 409, "held")
    equal(set(other.json), {"lock_acquired", "owner_id", "expires_at"}, "held: fields")
    equal((other.json["lock_acquired"], other.json["owner_id"]), (False, "me"), "held")
    check(instant(other.json["expires_at"]) > began + 15, f"held: {other}")

    show = g.get("/locks/t/a")
    equal(show.status, 200, "show")
    equal([show.json[k] for k in ("lock_id", "owner_id", "version", "mode", "kind", "note")],
          ["t/a", "me", token, "exclusive", "api", "by hand"], "show")
    equal(g.get("/locks/t%2Fa").json["version"], token, "an escaped slash")
    equal(g.get("http://localhost/locks/t/a").json["version"], token, "the absolute form")
    equal(g.call("HEAD", "/locks/t/a").body, b"", "HEAD")
    problem(g.get("/locks/t/free"), 404, "free", "show what is free")
    problem(g.get("/locks/t"), 404, "free", "show a directory")

    renew = g.renew("t/a", "me", ttl=40)
    equal((renew.status, renew.json["renewed"]), (200, True), "renew")
    check(instant(renew.json["expires_at"]) > began + 35, f"renew: {renew}")
    equal(g.renew("t/a", "me", ttl=40, token=token).status, 200, "renew by token")
    d = problem(g.renew("t/a", "you"), 409, "not-held", "renew another's")
    equal((d["renewed"], d["owner_id"]), (False, "me"), "renew another's")
    problem(g.renew("t/a", "me", token=token + 1), 409, "not-held", "renew with a wrong token")
    problem(g.renew("t/free", "me"), 409, "not-held", "renew what is free")

    d = problem(g.release("t/a", "you"), 404, "not-held", "release another's")
    equal(d["released"], False, "release another's")
    problem(g.release("t/a", "you", token=token), 404, "not-held", "another's by its token")
    problem(g.release("t/a", "me", token=token + 1), 404, "not-held", "release with a wrong token")
    equal(g.release("t/a", "me", token=token).json, {"released": True}, "release by token")
    problem(g.release("t/a", "me"), 404, "not-held", "release twice")
    newer = g.acquire("t/a", "me").json["token"]
    check(newer > token, "tokens grow")
    problem(g.release("t/a", "me", token=token), 404, "not-held", "release with an old token")
    equal(g.release("t/a", "me").json, {"released": True}, "release")

    for i in range(3):
        equal(g.acquire("t/s", f"reader{i}", mode="shared").status, 200, "shared")
    equal(g.acquire("t/s", "writer").status, 409, "exclusive beside shared")
    equal(len(g.get("/locks/t/s").json["holds"]), 3, "three hold it")
    for i in range(3):
        equal(g.release("t/s", f"reader{i}").status, 200, "release shared")

    for i in range(3):
        equal(g.acquire("t/sem", f"user{i}", limit=3).status, 200, "a slot of a semaphore")
    equal(g.acquire("t/sem", "user0", limit=3).status, 200, "the same slot")
    equal(g.acquire("t/sem", "user3", limit=3).status, 409, "a semaphore that is full")
    shown = g.get("/locks/t/sem").json
    equal((shown["limit"], len(shown["holds"])), (3, 3), "a semaphore shown")
    waiter = g.send_acquire("t/sem", "user3", limit=3, wait=30)
    wait_for("the waiter", 10, lambda: g.get("/locks/t/sem").json["waiters"] == 1)
    equal(g.release("t/sem", "user1").status, 200, "release a slot")
    equal(read_answer(waiter).status, 200, "the slot goes to the waiter")
    waiter.close()
    for i in (0, 2, 3):
        equal(g.release("t/sem", f"user{i}").status, 200, "release a slot")
    problem(g.acquire("t/sem", "me", limit=2, mode="shared"), 400, "bad-request", "a shared slot")

    equal(g.acquire("t/d", "me", ttl=0.2, lock_delay=1.5).status, 200, "with a lock-delay")
    wait_for("the lease to end", 5, lambda: g.get("/locks/t/d").status == 404)
    d = g.acquire("t/d", "you")
    equal(d.status, 409, "in the lock-delay")
    equal((d.json["lock_acquired"], d.json["owner_id"]), (False, None), "in the lock-delay")
    equal(g.acquire("t/d", "you", wait=10).status, 200, "behind the lock-delay")
    g.release("t/d", "you")

    g.acquire("t/dir/x", "me")
    equal(g.acquire("t/dir", "me").status, 409, "a directory is no lock")
    equal(g.acquire("t/dir/x/y", "me").status, 409, "there is nothing below a lock")
    g.release("t/dir/x", "me")
    equal(g.get("/healthz").status, 200, "healthz")
    equal(g.get("/openapi.json").json["openapi"][:3], "3.1", "openapi")


def waiting(g):
    g.acquire("w/a", "me", ttl=60)
    began = time.monotonic()
    a = g.acquire("w/a", "you", wait=0.5)
    equal((a.status, a.json["owner_id"]), (409, "me"), "waited in vain")
    check(time.monotonic() - began >= 0.5, "it waited")
    s = g.send_acquire("w/a", "you", ttl=30, wait=30)
    wait_for("the waiter", 10, lambda: g.get("/locks/w/a").json["waiters"] == 1)
    time.sleep(0.3)
    g.release("w/a", "me")
    a = read_answer(s)
    equal((a.status, a.json["lock_acquired"]), (200, True), "waited and got it")
    more = a.json["expires_from_request_ms"] - a.json["expires_in_ms"]
    check(more >= 290, f"the wait counts in expires_from_request_ms: {a}")
    s.close()
    g.release("w/a", "you")


def malformed(g):
    """What must be refused with 400, and the word that must be in the sentence."""
    deep = b'{"lock_id":' + b"[" * 5000 + b"]" * 5000 + b"}"
    texts = [b"", b"nonsense", b"[]", b"[1]", b"17", b"null", b'"x"', b"{", b'{"lock_id":"t/x"',
             json.dumps(ACQUIRE).encode()[:-1] + b',"ttl":1}',  # Twice.
             b'{"lock_id":"t/\xff\xfe","owner_id":"me","ttl":1}',  # No UTF-8.
             b'{"lock_id":"t/\xed\xa0\x80","owner_id":"me","ttl":1}',  # A surrogate.
             b'{"lock_id":"a\\u0000b","owner_id":"me","ttl":1}',
             json.dumps(ACQUIRE).encode() + b"x", deep,
             b'{"lock_id":"t/x","owner_id":"me","ttl":NaN}',
             b'{"lock_id":"t/x","owner_id":"me","ttl":Infinity}',
             b'{"lock_id":"t/x","owner_id":"me","ttl":1e999}',
             b'{"lock_id":"t/x","owner_id":"me","ttl":123456789012345678901234567890}',
             b'{"lock_id":"t/x","owner_id":"me","ttl":"30"}',
             b"\x00" * 100, b"\xef\xbb\xbf{}", b"lock_id=t%2Fx&owner_id=me&ttl=30"]
    for what in ("acquire", "release", "renew"):
        for text in texts:
            problem(g.post(what, text), 400, "bad-request", f"{what} {text[:60]!r}")
    wrong = {
        "lock_id": [1, None, True, [], {}, "", "/", "/a", "a/", "a//b", ".", "a/../b", ".holdfast",
                    "x" * 256, "/".join(["x"] * 17), "/".join(["y" * 120] * 9), "x" * 1024],
        "owner_id": [1, None, True, [], {}, "", "x" * 1025],
        "ttl": [0, -1, -0.5, 0.009, "1", None, True, [], 2592001, 1e300],
        "mode": [1, None, "", "EXCLUSIVE", "both"],
        "wait": [-1, "1", None, True, 1e9],
        "limit": [0, -1, 1.5, "2", None, 1 << 40],
        "lock_delay": [-1, "1", None, 1e9],
        "note": [1, None, "x" * 257],
        "token": [0, -1, 1.5, "7", None, True, 1 << 63],
        "unknown": [1],
    }
    for name, values in wrong.items():
        for value in values:
            for what in ("acquire", "release", "renew"):
                known = {"acquire": {"lock_id", "owner_id", "ttl", "mode", "wait", "limit",
                                     "lock_delay", "note"},
                         "release": {"lock_id", "owner_id", "token"},
                         "renew": {"lock_id", "owner_id", "ttl", "token"}}[what]
                body = {k: v for k, v in {**ACQUIRE, name: value}.items()
                        if k in known or k == name}
                text = json.dumps(body).encode()
                if value == 1 << 63:
                    text = text.replace(str(1 << 63).encode(), b"9223372036854775808")
                d = problem(g.post(what, text), 400, "bad-request", f"{what} {name}={value!r:.60}")
                if value != 1 << 63:
                    equal(d["field"], name, f"{what} {name}={value!r:.60}")
    for name in ("lock_id", "owner_id", "ttl"):
        equal(problem(g.post("acquire", without(ACQUIRE, name)), 400, "bad-request", name)["field"],
              name, "what is missing")
    equal(g.get("/locks/t/x").status, 404, "nothing of all that took the lock")

    for path in ("/locks/a//b", "/locks//a", "/locks/a/", "/locks/..", "/locks/a%00b", "/locks/%",
                 "/locks/%zz", "/locks/a%2", "/locks/" + "x" * 1024, "/locks/.holdfast/events"):
        problem(g.get(path), 400, "bad-lock-id", f"GET {path[:60]}")
    for query in ("limit=0", "limit=x", "limit=1001", "what=1", "prefix=%", "cursor=%25", "limit",
                  "prefix=" + "x" * 1024):
        problem(g.get("/locks?" + query), 400, "bad-request", f"GET /locks?{query[:60]}")
    for path in ("/", "/lock", "/locksmith", "/metrics/", "/healthz/x", "/OPENAPI.json"):
        problem(g.get(path), 404, "not-found", f"GET {path}")
    for method, path, allow in (("GET", "/locks/acquire/x/../y", None), ("PUT", "/locks/x", "GET, HEAD"),
                                ("DELETE", "/locks/x", "GET, HEAD"), ("POST", "/locks", "GET, HEAD"),
                                ("PATCH", "/healthz", "GET, HEAD"), ("BREW", "/locks/x", "GET, HEAD")):
        a = g.call(method, path)
        if allow is not None:
            problem(a, 405, "method", f"{method} {path}")
            equal(a.headers["allow"], allow, f"{method} {path}")
    problem(g.get("/locks/acquire"), 404, "free", "a lock may be called acquire")


def sizes(g):
    big = b'{"note":"' + b"x" * 10_000_000 + b'"}'
    for what in ("acquire", "release", "renew"):
        problem(g.post(what, big), 413, "too-large", f"{what} with 10 MB")
    s = g.socket()  # A client that asks first need not send it.
    s.sendall(b"POST /locks/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n"
              b"Expect: 100-continue\r\n\r\n")
    problem(read_answer(s), 413, "too-large", "10 MB with Expect")
    s.close()
    s = g.socket()
    s.sendall(b"POST /locks/acquire HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(70):
        s.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
    s.sendall(b"0\r\n\r\n")
    problem(read_answer(s), 413, "too-large", "70 KiB in chunks")
    s.close()
    s = g.socket()
    body = json.dumps({**ACQUIRE, "lock_id": "t/chunks"}).encode()
    s.sendall(b"POST /locks/acquire HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in body:
        s.sendall(b"1\r\n" + bytes([byte]) + b"\r\n")
    s.sendall(b"0\r\n\r\n")
    equal(read_answer(s).status, 200, "a body in chunks of a byte")
    s.close()
    s = g.socket()  # A head that is too long: an answer of the library, and the connection ends.
    s.sendall(b"GET /locks/x HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n")
    a = read_answer(s)
    check(a is None or a.status in (413, 431), f"a head of 200 kB: {a}")
    s.close()
    s = g.socket()
    s.sendall(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03garbage\r\n\r\n")
    check(read_answer(s) is None or True, "garbage")
    s.close()

    name = "/".join(["n" * 204] * 5)[:1023].rstrip("/")
    equal(g.acquire(name, "x" * 1024).status, 200, "long names")
    shown = g.get("/locks/" + name)
    equal(shown.json["lock_id"], name, "a long lock_id comes back")
    check(shown.json["owner_id"].startswith("xxxx") and "~" in shown.json["owner_id"], f"{shown}")
    equal(g.acquire(name, "x" * 1023 + "y").status, 409, "a long owner_id that ends otherwise")
    equal(g.release(name, "x" * 1024).status, 200, "release under long names")
    odd = "ä ö/%2F?#&=\U0001f512"
    owner = "o\nw/n%e~r \U0001f511"
    equal(g.acquire(odd, owner).status, 200, "odd names")
    equal(g.acquire(odd, owner + "x").json["owner_id"], owner, "an odd owner_id comes back")
    quoted = "".join(f"%{b:02x}" for b in odd.encode())
    equal([g.get("/locks/" + quoted).json[k] for k in ("lock_id", "owner_id")], [odd, owner], "odd names")
    equal(g.release(odd, owner).status, 200, "odd names")
    equal(g.acquire("t/events", "me").status, 200, "a lock called events")
    equal(g.get("/locks/t%2Fevents").json["owner_id"], "me", "a lock called events")
    g.release("t/events", "me")


def framing(g):
    """Heads that two may read differently: refused, and nothing behind them is taken for a request."""
    body = json.dumps(ACQUIRE).encode()
    behind = request("GET", "/healthz")
    post = b"POST /locks/acquire HTTP/1.1\r\n"
    size = b"Content-Length: %d\r\n" % len(body)
    for what, head in {
            "two sizes": post + b"Host: localhost\r\n" + size + b"Content-Length: 0\r\n",
            "size and chunks": post + b"Host: localhost\r\n" + size + b"Transfer-Encoding: chunked\r\n",
            "another coding": post + b"Host: localhost\r\nTransfer-Encoding: gzip, chunked\r\n",
            "identity": post + b"Host: localhost\r\nTransfer-Encoding: identity\r\n",
            "two codings": post + b"Host: localhost\r\n" + 2 * b"Transfer-Encoding: chunked\r\n",
            "a space before the colon": post + b"Host: localhost\r\nTransfer-Encoding : chunked\r\n",
            "chunks by HTTP/1.0": b"POST /locks/acquire HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
            "no host": post + size,
            "two hosts": post + b"Host: localhost\r\nHost: 127.0.0.1\r\n" + size,
            "two tokens": post + b"Host: localhost\r\n" + 2 * b"Authorization: Bearer x\r\n" + size,
            "a space": b"GET /locks/a b HTTP/1.1\r\nHost: localhost\r\n"}.items():
        with g.socket() as s:
            s.sendall(head + b"\r\n0\r\n\r\n" + body + behind)
            a = read_answer(s)
            problem(a, 400, "bad-request", what)
            equal(a.headers.get("connection"), "close", what)
            try:
                equal(s.recv(65536), b"", f"{what}: what comes behind the answer")
            except ConnectionError:
                pass
    equal(g.get("/locks/t/x").status, 404, "none of them took the lock")
    for method in ("PUT", "DELETE"):
        a = g.call(method, "/locks/acquire")
        equal(a.headers["allow"], "GET, HEAD, POST", f"{method} instead of POST")


def crowd(g):
    """More holders than one answer tells of."""
    n = 1100

    def all_of_them(what, **more):
        sockets = [g.socket(60) for _ in range(100)]
        for k, s in enumerate(sockets):
            s.sendall(b"".join(request("POST", f"/locks/{what}", {
                "lock_id": "crowd", "owner_id": f"o{i}", **more}) for i in range(k, n, 100)))
        for s in sockets:
            got = b""
            while got.count(b"HTTP/1.1 200") < n / 100:
                part = s.recv(65536)
                check(part, f"{what}: {got[-300:]}")
                got += part
            s.close()
    all_of_them("acquire", ttl=120, mode="shared")
    shown = g.get("/locks/crowd").json
    equal((shown["n_holds"], len(shown["holds"])), (n, 1024), "a crowd")
    last = {f"o{i}" for i in range(n)} - {h["owner_id"] for h in shown["holds"]}
    problem(g.release("crowd", "nobody"), 404, "not-held", "one who is not of it")
    for name in last:
        equal(g.release("crowd", name).status, 200, f"release of {name}, of whom the answer did not tell")
        equal(g.acquire("crowd", name, ttl=120, mode="shared").status, 200, name)
    all_of_them("release")
    equal(g.get("/locks/crowd").status, 404, "free")


def full_house(c):
    """Every connection in use, and slow, when it is told to stop."""
    g = Gateway(c, "full", options=("--no-auth", "--connections-max", "16", "--timeout", "1s")).wait_ready()
    half = request("POST", "/locks/acquire", ACQUIRE)[:-5]
    sockets = []
    for _ in range(16):
        sockets.append(g.socket())
        sockets[-1].sendall(half)
    time.sleep(0.5)
    g.process.signal(signal.SIGTERM)
    return g, sockets


def lists(g):
    names = sorted(f"l/{i:03d}" for i in range(25)) + ["l2/x"]
    for name in names:
        equal(g.acquire(name, "me").status, 200, "to be listed")
    found, cursor, pages = [], None, 0
    while True:
        a = g.get("/locks?prefix=l/&limit=10" + (f"&cursor={cursor}" if cursor else ""))
        equal(a.status, 200, f"list: {a}")
        check(len(a.json["locks"]) <= 10, "a page")
        found += [x["lock_id"] for x in a.json["locks"]]
        pages += 1
        cursor = a.json["cursor"]
        if cursor is None:
            break
    equal(found, names[:25], "listed in order")
    check(pages >= 3, "pages")
    equal({x["lock_id"] for x in g.get("/locks?prefix=l").json["locks"]}, set(names), "a prefix")
    equal({x["owner_id"] for x in g.get("/locks/?prefix=l").json["locks"]}, {"me"}, "owners")
    equal(g.get("/locks?prefix=none").json, {"locks": [], "cursor": None}, "nothing there")
    for name in names:
        g.release(name, "me")


def events(one, two):
    e = Events(one, "/locks/e/a/events")
    equal(e.response.getheader("Content-Type"), "text/event-stream", "events")
    equal(e.until("state")["held"], False, "the state first")
    token = two.acquire("e/a", "me", ttl=30).json["token"]
    d = e.until("granted")
    equal([d[k] for k in ("lock_id", "owner_id", "version")], ["e/a", "me", token], "granted")
    two.acquire("e/b", "me")  # Another one: nothing of it is told.
    late = Events(two, "/locks/e/a/events")
    d = late.until("state")
    equal((d["held"], d["owner_id"], d["version"]), (True, "me", token), "the state of a held one")
    two.renew("e/a", "me")
    for x in (e, late):
        equal(x.until("renewed")["version"], token, "renewed")
    two.acquire("e/a", "you", wait=0.1)
    equal(e.until("queued")["owner_id"], "you", "queued")
    equal(e.until("refused")["reason"], "timeout", "refused")
    above = Events(one, "/locks/e/events")
    above.until("state")
    two.release("e/a", "me")
    for x in (e, late, above):
        d = x.until("ended")
        equal((d["lock_id"], d["reason"]), ("e/a", "released"), "ended")
    two.release("e/b", "me")
    equal(above.until("ended")["lock_id"], "e/b", "below a name")
    for x in (e, late, above):
        x.close()
    wait_for("the streams to end", 10, lambda: one.metric("holdfast_gateway_event_streams") == 0)


def late(one, two):
    """A request that its client gave up comes behind a later one: it takes nothing away."""
    token = one.acquire("late/a", "me", ttl=60).json["token"]
    for what, answer in (("acquire", two.acquire("late/a", "me", ttl=0.5)),
                         ("acquire shared", two.acquire("late/a", "me", ttl=0.5, mode="shared")),
                         ("acquire a slot", two.acquire("late/a", "me", ttl=0.5, limit=3)),
                         ("renew", two.renew("late/a", "me", ttl=0.5)),
                         ("renew by token", two.renew("late/a", "me", ttl=0.5, token=token))):
        equal((answer.status, answer.json["token"]), (200, token), what)
        check(answer.json["expires_in_ms"] > 50000, f"{what} shortened the lease: {answer}")
    shown = one.get("/locks/late/a").json
    equal((shown["mode"], shown["version"], shown.get("limit")), ("exclusive", token, None), "what is held")
    time.sleep(0.7)
    equal(two.acquire("late/a", "you", mode="shared").status, 409, "behind the shorter ttl")
    equal(one.release("late/a", "me", token=token).status, 200, "release")
    equal(one.acquire("late/a", "me", limit=3).status, 200, "a slot")
    d = problem(two.acquire("late/a", "me", limit=2), 409, "held", "a slot of a smaller semaphore")
    equal(d["lock_acquired"], False, "a slot of a smaller semaphore")
    # In the queue: what was asked for first is granted, the late one behind it changes nothing.
    one.acquire("late/b", "holder", ttl=60)
    first = one.send_acquire("late/b", "me", ttl=60, wait=30)
    wait_for("the first", 10, lambda: one.get("/locks/late/b").json["waiters"] == 1)
    second = two.send_acquire("late/b", "me", ttl=0.5, wait=30, mode="shared")
    wait_for("the second", 10, lambda: one.get("/locks/late/b").json["waiters"] == 2)
    equal(one.release("late/b", "holder").status, 200, "release")
    answers = [read_answer(s).json for s in (first, second)]
    equal(answers[0]["token"], answers[1]["token"], "one hold")
    check(answers[0]["expires_in_ms"] > 50000, f"{answers}")
    time.sleep(0.7)
    equal(two.acquire("late/b", "you", mode="shared").status, 409, "behind the shorter ttl")
    for s in (first, second):
        s.close()
    for lock in ("late/a", "late/b"):
        equal(one.release(lock, "me").status, 200, "release")
        equal(one.get("/locks/" + lock).status, 404, "free")


def side_by_side(one, two):
    token = one.acquire("s/a", "me").json["token"]
    equal(two.acquire("s/a", "me").json["token"], token, "the same owner at another gateway")
    equal(two.acquire("s/a", "you").json["owner_id"], "me", "another owner at another gateway")
    equal(two.renew("s/a", "me").status, 200, "renew at another gateway")
    waiter = two.send_acquire("s/a", "you", wait=30)
    wait_for("the waiter", 10, lambda: one.get("/locks/s/a").json["waiters"] == 1)
    equal(two.release("s/a", "me").status, 200, "release at another gateway")
    equal(read_answer(waiter).status, 200, "the waiter at the other gateway")
    waiter.close()
    # One gateway dies: what was taken through it stays, and can be released through the other.
    equal(two.release("s/a", "you").status, 200, "release")
    equal(one.acquire("s/b", "me").status, 200, "through one")
    one.process.kill()
    equal(two.acquire("s/b", "you").status, 409, "its locks stay")
    equal(two.release("s/b", "me").status, 200, "and can be released")
    one.start()
    one.wait_ready()


def beside_mount(g, m):
    """Whichever way a program locks, it excludes those that lock the other ways."""
    equal(g.acquire("m/http", "worker 7", ttl=60, note="a note").status, 200, "over HTTP")
    seen = m.read("m/http")
    check("worker%207" in seen["owner"], f"cat shows the owner: {seen}")
    equal((seen["note"], seen["mode"]), ("a note", "exclusive"), "cat")
    equal(int(seen["token"]), g.get("/locks/m/http").json["version"], "cat shows the token")
    equal(m.try_acquire("m/http"), None, "O_EXCL of a lock held over HTTP")
    fd = os.open(m.path("m/http"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        check(False, "flock of a lock held over HTTP")
    except BlockingIOError:
        pass
    g.release("m/http", "worker 7")
    wait_for("flock to succeed", 5, lambda: try_flock(fd))
    a = g.acquire("m/http", "me")
    equal(a.status, 409, "HTTP of a lock held by flock")
    check(a.json["owner_id"], "its owner is shown")
    equal(a.json["expires_at"], None, "it has no end of its own")
    shown = g.get("/locks/m/http").json
    equal((shown["kind"], shown["expires_at"], shown["pid"]), ("flock", None, os.getpid()), "shown")
    waiter = g.send_acquire("m/http", "me", wait=30)
    wait_for("the waiter", 10, lambda: g.get("/locks/m/http").json["waiters"] == 1)
    os.close(fd)
    equal(read_answer(waiter).status, 200, "HTTP behind flock")
    waiter.close()
    g.release("m/http", "me")
    fd = m.acquire("m/excl")
    equal(g.acquire("m/excl", "me").status, 409, "HTTP of a lock held by O_EXCL")
    equal(g.release("m/excl", "me").status, 404, "and no release of it")
    os.unlink(m.path("m/excl"))
    equal(g.acquire("m/excl", "me", ttl=0.3).status, 200, "HTTP behind O_EXCL")
    fd2 = wait_for("the lease to end", 10, lambda: m.try_acquire("m/excl"))
    problem(g.renew("m/excl", "me"), 409, "not-held", "an ended lease")
    os.close(fd)
    os.close(fd2)
    fd3 = m.acquire("m/old")
    events = Events(g, "/locks/m/events")
    events.until("state")
    os.rename(m.path("m/old"), m.path("m/new"))
    d = events.until("renamed")
    equal((d["lock_id"], d["new_lock_id"]), ("m/old", "m/new"), "renamed")
    os.close(fd3)
    os.unlink(m.path("m/new"))
    events.until("ended")
    equal(events.seen.count("renamed"), 1, "who watches both names is told once")
    events.close()
    raw = b"m/\xff\xfe"  # No UTF-8: only a mount makes such names.
    fd = os.open(os.fsencode(m.dir) + b"/" + raw, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    equal(g.get("/locks/m/%FF%fe").status, 200, "a name that is no UTF-8")
    check([x for x in g.get("/locks?prefix=m/%FF").json["locks"] if x["lock_id"] == "m/%FF%FE"],
          "listed with its bytes escaped")
    os.close(fd)


def try_flock(fd):
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def validity(g):
    """What a client believes by the answer's rule ends before the cluster grants anew."""
    for i in range(5):
        began = boot_ns()
        a = g.acquire("v/a", f"holder{i}", ttl=0.4, wait=10)
        equal(a.status, 200, "granted")
        mine = began + a.json["expires_from_request_ms"] * 10**6
        b = g.acquire("v/a", "next", ttl=0.2, wait=10)
        now = boot_ns()
        equal(b.status, 200, "granted behind it")
        check(now > mine, f"granted {(mine - now) / 1e6:.1f} ms before the holder stopped")
        g.release("v/a", "next")


def web_pages(g):
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"},
                    {"Sec-Fetch-Site": "cross-site"}):
        problem(g.call("POST", "/locks/acquire", ACQUIRE, headers=headers), 403, "forbidden",
                f"a web page: {headers}")


def main(t):
    c = t.cluster(3).start()
    one, two = Gateway(c, "1").wait_ready(), Gateway(c, "2").wait_ready()
    full, sockets = full_house(c)
    calls(one)
    waiting(one)
    malformed(one)
    framing(one)
    sizes(one)
    crowd(one)
    lists(one)
    validity(one)
    web_pages(one)
    events(one, two)
    late(one, two)
    side_by_side(one, two)
    if os.path.exists("/dev/fuse"):
        m = c.mount("a", options="ttl=60s")
        os.mkdir(m.path("m"))
        beside_mount(one, m)
    # Pipelined on one connection, answered in order.
    s = one.socket()
    s.sendall(b"".join(request("POST", "/locks/acquire", {**ACQUIRE, "lock_id": f"p/{i}"})
                       for i in range(20)))
    stream = s.makefile("rb")
    for i in range(20):
        check(b"200" in stream.readline(), f"pipelined {i}")
        size = 0
        while (line := stream.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        check(json.loads(stream.read(size))["lock_acquired"], f"pipelined {i}")
    s.close()
    equal(full.process.wait(40), 0, "a clean end with a full house")
    del sockets
    for g in (one, two):
        equal(g.metric("holdfast_gateway_requests_in_flight"), 1, "nothing but this is in flight")
        equal(g.process.end(), 0, "a clean end")
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
