#!/usr/bin/python3
"""Access tokens of a real authorization server: who gets in, what the policy lets them do, key rotation, a stolen
owner_id, an issuer that is away, rate limits."""
# seconds: 60
# sanitized: no
import base64
import hashlib
import hmac
import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from gateway import Events, Gateway, problem, read_answer  # noqa: E402
from issuer import Issuer, client  # noqa: E402

CLIENTS = [client("ci", ["deployer"], "ES256"), client("rival", ["deployer"], "EdDSA"),
           client("watcher", ["reader", "unknown"], "RS256"), client("nobody"),
           client("ops-1"), client("brief", ["reader"], ttl_s=2)]


def policy(*paths):
    return {
        "version": 1,
        "roles": {
            "reader": {"allow": [{"verbs": ["read"], "paths": ["/"]}],
                       "deny": [{"verbs": ["read"], "paths": ["/deploy/secret"]}]},
            "deployer": {"allow": [{"verbs": ["read", "acquire"], "paths": list(paths)}],
                         "deny": [{"verbs": ["acquire"], "paths": ["/deploy/frozen"]}]},
        },
        "bindings": [{"subject": "ops-*", "roles": ["reader", "deployer"]}],
    }


def bearer(token):
    return {"Authorization": "Bearer " + token}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def refused(answer, status, name, error, what):
    document = problem(answer, status, name, what)
    challenge = answer.headers.get("www-authenticate", "")
    check(challenge.startswith('Bearer realm="holdfast"'), f"{what}: WWW-Authenticate {challenge!r}")
    check((f'error="{error}"' in challenge) if error else ("error" not in challenge),
          f"{what}: WWW-Authenticate {challenge!r}")
    return document


def write_policy(t, content):
    file = os.path.join(t.directory, "policy.json")
    with open(file + ".new", "w") as f:
        json.dump(content, f)
    os.rename(file + ".new", file)
    return file


def who_gets_in(g, issuer):
    refused(g.get("/locks/a"), 401, "unauthorized", None, "no token")
    refused(g.get("/locks/a", headers={"Authorization": "Basic YTpi"}), 401, "unauthorized", None, "Basic")
    refused(g.acquire("deploy/a", "me"), 401, "unauthorized", None, "acquire without a token")
    for path in ("/healthz", "/readyz", "/openapi.json"):
        equal(g.get(path).status, 200, path)
    for name in ("ci", "rival", "watcher", "ops-1"):  # ES256, EdDSA, RS256.
        answer = g.get("/locks/deploy/free", headers=bearer(issuer.token(name)))
        problem(answer, 404, "free", f"token of {name}")

    good = issuer.token("ci")
    head, body, signature = good.split(".")
    claims = json.loads(unb64(body))

    def signed_like(header, payload, sign=lambda text: b""):
        text = b64(json.dumps(header).encode()) + "." + b64(json.dumps(payload).encode())
        return text + "." + b64(sign(text.encode()))

    rsa = next(k for k in issuer.keys() if k["kty"] == "RSA")
    public = json.dumps(rsa).encode()
    bad = {
        "garbage": "garbage",
        "empty": "",
        "cut": good[:-3],
        "other subject": f"{head}.{b64(json.dumps(claims | {'sub': 'ops-1'}).encode())}.{signature}",
        "none": signed_like({"alg": "none"}, claims),
        "HMAC with the public key": signed_like(
            {"alg": "HS256", "kid": rsa["kid"]}, claims,
            lambda text: hmac.new(public, text, hashlib.sha256).digest()),
        "another audience": issuer.token("ci", resource="urn:another"),
        "huge": good + "A" * 9000,
    }
    for what, token in bad.items():
        refused(g.get("/locks/a", headers=bearer(token)), 401, "unauthorized", "invalid_token", what)
    refused(g.get("/locks/deploy/a", headers=bearer(issuer.token("ci", scope="other"))), 403, "forbidden",
            "insufficient_scope", "a token without the scope")
    check(good not in g.process.text() and good.split(".")[2] not in g.process.text(),
          "the gateway's log has a token in it")


def what_they_may(t, g, issuer):
    ci, rival, watcher, nobody = (bearer(issuer.token(n)) for n in ("ci", "rival", "watcher", "nobody"))
    taken = g.acquire("deploy/web", "me", headers=ci)
    equal(taken.status, 200, f"acquire: {taken}")
    for lock_id in ("jobs/web", "deployment", "deploy/frozen/a"):
        refused(g.acquire(lock_id, "me", headers=ci), 403, "forbidden", "insufficient_scope", lock_id)
    refused(g.acquire("deploy/web2", "me", headers=watcher), 403, "forbidden", "insufficient_scope", "a reader acquires")
    refused(g.get("/locks/deploy/web", headers=nobody), 403, "forbidden", "insufficient_scope", "nobody reads")
    check('msg="denied" subject="ci" verb=acquire path="jobs/web"' in g.process.text(), "no line about the denial")
    equal(g.get("/locks/deploy/web", headers=watcher).json["owner_id"], "me", "a reader reads")

    # Lists and events show what the caller may read, and nothing else.
    equal(g.acquire("deploy/secret/a", "me", headers=ci).status, 200, "acquire")

    def listed(headers):
        return [lock["lock_id"] for lock in g.get("/locks", headers=headers).json["locks"]]
    equal(listed(ci), ["deploy/secret/a", "deploy/web"], "list of ci")
    equal(listed(watcher), ["deploy/web"], "list of a reader with a deny")
    equal(listed(nobody), [], "list of nobody")
    refused(g.get("/locks/deploy/secret/a", headers=watcher), 403, "forbidden", "insufficient_scope", "denied read")
    # No cursor names what may not be read, however much of it lies between.
    for i in range(40):
        equal(g.acquire(f"deploy/secret/{i:02}", "me", headers=ci).status, 200, "acquire")
    equal(g.acquire("deploy/zz", "me", headers=ci).status, 200, "acquire")
    found, cursor = [], ""
    while cursor is not None:
        page = g.get(f"/locks?limit=1&cursor={cursor}", headers=watcher).json
        found += [lock["lock_id"] for lock in page["locks"]]
        cursor = page["cursor"]
        check("secret" not in (cursor or ""), f"the cursor tells of a lock: {page}")
    equal(found, ["deploy/web", "deploy/zz"], "page by page")
    for lock_id in (*(f"deploy/secret/{i:02}" for i in range(40)), "deploy/zz"):
        equal(g.release(lock_id, "me", headers=ci).status, 200, "release")
    events = Events(g, "/locks/deploy/events", headers=watcher)
    events.until("state")
    equal(g.release("deploy/secret/a", "me", headers=ci).status, 200, "release of a lock that is not seen")
    equal(g.acquire("deploy/seen", "me", headers=ci).status, 200, "acquire")
    equal(events.until("granted")["lock_id"], "deploy/seen", "events of a reader with a deny")
    check("ended" not in events.seen, f"events: {events.seen}")
    events.close()
    equal(g.release("deploy/seen", "me", headers=ci).status, 200, "release")

    # A hold remembers its subject: the owner_id alone is worth nothing, nor is it with the token.
    token = taken.json["token"]
    for more in ({}, {"token": token}):
        problem(g.release("deploy/web", "me", headers=rival, **more), 403, "other-subject", f"stolen release {more}")
        problem(g.renew("deploy/web", "me", headers=rival, **more), 403, "other-subject", f"stolen renew {more}")
    equal(g.acquire("deploy/web", "me", headers=rival).status, 409, "acquire under a stolen owner_id")
    equal(g.acquire("deploy/web", "me", headers=ci).json["token"], token, "acquire again")
    equal(g.renew("deploy/web", "me", headers=ci).status, 200, "renew")
    equal(g.release("deploy/web", "me", headers=ci).status, 200, "release")

    # SIGHUP: the policy is read again; a bad one changes nothing.
    write_policy(t, {"version": 1})
    g.process.signal(signal.SIGHUP)
    wait_for("the bad policy to be refused", 20, lambda: "policy stays" in g.process.text())
    equal(g.acquire("deploy/web", "me", headers=ci).status, 200, "acquire under the old policy")
    write_policy(t, policy("/jobs"))
    g.process.signal(signal.SIGHUP)
    wait_for("the new policy", 20, lambda: g.acquire("jobs/web", "me", headers=ci).status == 200)
    refused(g.release("deploy/web", "me", headers=ci), 403, "forbidden", "insufficient_scope", "under the new policy")
    write_policy(t, policy("/deploy"))
    g.process.signal(signal.SIGHUP)
    wait_for("the old policy", 20, lambda: g.release("deploy/web", "me", headers=ci).status == 200)


def renamings(c, g, issuer):
    """Of a lock that gets another name, nobody is told a name that he may not read."""
    if not os.path.exists("/dev/fuse"):
        return
    m = c.mount("a")
    os.makedirs(m.path("deploy/secret"))
    watcher = Events(g, "/locks/deploy/events", headers=bearer(issuer.token("watcher")))
    watcher.until("state")
    for old, new, told in (("x", "secret/x", {"lock_id": "deploy/x"}), ("secret/x", "y", {"new_lock_id": "deploy/y"}),
                           ("y", "z", {"lock_id": "deploy/y", "new_lock_id": "deploy/z"})):
        if old == "x":
            os.close(m.acquire("deploy/x"))
        os.rename(m.path("deploy/" + old), m.path("deploy/" + new))
        d = watcher.until("renamed")
        equal({k: v for k, v in d.items() if k.endswith("lock_id")}, told, f"{old} renamed to {new}")
    os.unlink(m.path("deploy/z"))
    watcher.close()


def rotation(g, issuer):
    def get(token):
        return g.get("/locks/deploy/free", headers=bearer(token))
    old = issuer.token("ci")
    equal(get(old).status, 404, "before the rotation")
    issuer.rotate()
    new = issuer.token("ci")
    equal(get(new).status, 404, "the first request by a new key: the gateway looks for it")
    equal(get(old).status, 404, "the old key is still published")
    issuer.rotate(drop=True)
    newest = issuer.token("ci")
    wait_for("the newest key to be known", 30, lambda: get(newest).status == 404, pause=0.2)
    for token in (old, new):
        refused(get(token), 401, "unauthorized", "invalid_token", "a token whose key was rotated out")


def time_passes(g, issuer):
    token = issuer.token("brief")
    problem(g.get("/locks/a", headers=bearer(token)), 404, "free", "a token of 2 s")
    events = Events(g, "/locks/a/events", headers=bearer(token))
    events.until("state")
    answer = wait_for("its end", 30, lambda: (a := g.get("/locks/a", headers=bearer(token))).status == 401 and a,
                      pause=0.2)
    check("expired" in refused(answer, 401, "unauthorized", "invalid_token", "an expired token")["detail"],
          f"{answer}")
    wait_for("the end of its stream", 60, lambda: events.next(50) is None)
    events.close()


def rates(c, issuer, options):
    g = Gateway(c, "rates", [*options, "--rate-subject", "8/h:8", "--rate-owner", "2/h:2"]).wait_ready()
    ci, rival = bearer(issuer.token("ci")), bearer(issuer.token("rival"))
    first = g.acquire("deploy/r", "me", headers=ci)
    equal(first.status, 200, f"{first}")
    equal([first.headers.get("ratelimit-" + n) for n in ("limit", "remaining", "reset")], ["2", "1", "1800"],
          "RateLimit-* tell the tighter bucket")
    equal(g.renew("deploy/r", "me", headers=ci).status, 200, "the second of the owner")
    third = g.release("deploy/r", "me", headers=ci)
    problem(third, 429, "rate", "the third of the owner")
    check(1700 < int(third.headers["retry-after"]) <= 1800, f"{third.headers}")
    equal(third.headers["ratelimit-remaining"], "0", "RateLimit-Remaining")
    equal(g.acquire("deploy/s", "you", headers=ci).status, 200, "another owner_id")
    equal(g.acquire("deploy/t", "me", headers=rival).status, 200, "the same owner_id of another subject")
    for i in range(5, 9):
        answer = g.get("/locks/deploy/free", headers=ci)
        equal((answer.status, answer.headers.get("ratelimit-remaining")), (404, str(8 - i)), f"request {i}")
    ninth = g.get("/locks/deploy/free", headers=ci)
    problem(ninth, 429, "rate", "the ninth of the subject")
    check(1 <= int(ninth.headers["retry-after"]) <= 450, f"{ninth.headers}")
    equal(g.get("/locks/deploy/free", headers=rival).status, 404, "another subject")
    equal(g.get("/healthz").status, 200, "healthz")
    check(g.metric("holdfast_gateway_rate_limited_total") >= 2, "rate_limited_total")


def shares(c, issuer, options):
    """One subject can't take all of a gateway."""
    g = Gateway(c, "shares", [*options, "--connections-max", "16"]).wait_ready()
    ci, rival = bearer(issuer.token("ci")), bearer(issuer.token("rival"))
    equal(g.acquire("deploy/held", "me", ttl=120, headers=ci).status, 200, "held")
    body = json.dumps({"lock_id": "deploy/held", "owner_id": "you", "ttl": 30, "wait": 100}).encode()
    waiters = [g.connection() for _ in range(8)]
    for w in waiters:
        w.request("POST", "/locks/acquire", body, ci)
    wait_for("the waiters", 20, lambda: g.metric("holdfast_gateway_waiting") == 8)
    answer = g.get("/locks/deploy/held", headers=ci)
    check(int(problem(answer, 429, "rate", "one more")["status"]) == 429 and answer.headers["retry-after"] == "1",
          f"{answer.headers}")
    equal(g.get("/locks/deploy/held", headers=rival).status, 200, "another subject")
    for w in waiters:
        w.close()
    wait_for("its share to be free", 20, lambda: g.get("/locks/deploy/held", headers=ci).status == 200)
    equal(g.release("deploy/held", "me", headers=ci).status, 200, "release")
    equal(g.process.end(), 0, "a clean end")


def failures(c, issuer, options):
    """Too many bad tokens from an address: those that are not known yet are not looked at any more."""
    g = Gateway(c, "failures", [*options, "--rate-failed", "5/h:5", "--strict-typ"]).wait_ready()
    ci, rival = bearer(issuer.token("ci")), bearer(issuer.token("rival"))
    equal(g.get("/locks/deploy/free", headers=ci).status, 404, "at+jwt is what --strict-typ wants")
    with g.socket() as s:  # Who may not enter need not send the body.
        s.sendall(b"POST /locks/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
                  b"Expect: 100-continue\r\nAuthorization: Bearer x.y.z\r\n\r\n")
        refused(read_answer(s), 401, "unauthorized", "invalid_token", "before the body")
    for i in range(4):
        refused(g.get("/locks/a", headers=bearer("x.y.z")), 401, "unauthorized", "invalid_token", f"bad token {i}")
    for token in (bearer("x.y.z"), rival):
        answer = g.get("/locks/a", headers=token)
        problem(answer, 429, "rate", "one too many")
        check(1 <= int(answer.headers["retry-after"]) <= 720, f"{answer.headers}")
    equal(g.get("/locks/deploy/free", headers=ci).status, 404, "a token that is known")
    refused(g.get("/locks/a"), 401, "unauthorized", None, "no token")


def issuer_away(c, g, issuer, options):
    token = issuer.token("ci")
    equal(g.get("/locks/deploy/free", headers=bearer(token)).status, 404, "before")
    issuer.process.kill()
    equal(g.get("/locks/deploy/free", headers=bearer(token)).status, 404, "by the keys of before")
    late = Gateway(c, "late", options)
    wait_for("the late gateway", 20, lambda: "serving" in late.process.text())
    problem(late.get("/readyz"), 503, "no-keys", "not ready without keys")
    answer = late.get("/locks/deploy/free", headers=bearer(token))
    problem(answer, 503, "no-keys", "no keys")
    check(int(answer.headers["retry-after"]) >= 1, f"{answer.headers}")
    refused(late.get("/locks/a"), 401, "unauthorized", None, "no token and no keys")
    issuer.start()  # With other keys.
    late.wait_ready(40)
    equal(late.get("/locks/deploy/free", headers=bearer(issuer.token("ci"))).status, 404, "keys came later")
    refused(late.get("/locks/deploy/free", headers=bearer(token)), 401, "unauthorized", "invalid_token",
            "a token by the keys of before")


def main(t):
    issuer = Issuer(t, CLIENTS).start()
    c = t.cluster(1).start()
    options = ["--jwks", issuer.url + "/jwks", "--issuer", issuer.url, "--audience", "holdfast",
               "--policy", write_policy(t, policy("/deploy")), "--scope", "locks",
               "--roles-claim", "realm_access.roles", "--leeway", "1s"]
    g = Gateway(c, "1", options).wait_ready()
    who_gets_in(g, issuer)
    what_they_may(t, g, issuer)
    renamings(c, g, issuer)
    time_passes(g, issuer)
    rotation(g, issuer)
    other = Gateway(c, "2", [*options[:2], "--issuer", "https://issuer.example", *options[4:]]).wait_ready()
    refused(other.get("/locks/a", headers=bearer(issuer.token("ci"))), 401, "unauthorized", "invalid_token",
            "a token of another issuer")
    rates(c, issuer, options)
    shares(c, issuer, options)
    failures(c, issuer, options)
    issuer_away(c, g, issuer, options)


run_case(main)
