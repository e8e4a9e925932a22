#!/usr/bin/python3
"""/openapi.json: a validator accepts it, and every answer of the API is as it says."""
# seconds: 20
# sanitized: no
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import case_http  # noqa: E402
import npm  # noqa: E402
from cluster import check, equal, run_case  # noqa: E402
from gateway import Gateway  # noqa: E402


def main(t):
    directory = npm.install(t, "openapi")
    c = t.cluster(1).start()
    g = Gateway(c, options=("--no-auth", "--timeout", "2s")).wait_ready()
    g.record = []
    served = g.get("/openapi.json")
    equal(served.status, 200, "openapi.json")
    case_http.calls(g)
    case_http.waiting(g)
    case_http.malformed(g)
    case_http.lists(g)
    case_http.web_pages(g)
    g.post("acquire", b"x" * 70000)
    for path in ("/healthz", "/readyz", "/metrics"):
        g.get(path)
    c.nodes[1].process.stop()
    for body in (g.acquire("o/x", "me"), g.renew("o/x", "me"), g.release("o/x", "me"),
                 g.get("/locks/o/x"), g.get("/locks")):
        equal(body.status, 503, "without a majority")
    c.nodes[1].process.cont()
    document, answers = (os.path.join(t.directory, n) for n in ("openapi.json", "answers.json"))
    with open(document, "wb") as f:
        f.write(served.body)
    with open(answers, "w") as f:
        json.dump(g.record, f)
    done = subprocess.run(["node", os.path.join(directory, "validate.mjs"), document, answers],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    check(done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-2000:]}")
    seen = json.loads(done.stdout.splitlines()[-1])
    for wanted in ("acquire 200 application/json", "acquire 409 application/json",
                   "acquire 409 application/problem+json", "acquire 503 application/problem+json",
                   "release 404 application/problem+json", "renew 409 application/problem+json",
                   "show 200 application/json", "list 200 application/json",
                   "acquire 413 application/problem+json", "acquire 403 application/problem+json"):
        check(wanted in seen, f"{wanted} was not seen: {seen}")
    # It must be able to say no: an answer that has no token is not what the document promises.
    with open(answers, "w") as f:
        json.dump([["POST", "/locks/acquire", 200, "application/json", '{"lock_acquired":true}']], f)
    done = subprocess.run(["node", os.path.join(directory, "validate.mjs"), document, answers],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    check(done.returncode == 1 and "token" in done.stdout, f"a bad answer passed: {done.stdout}")
    equal(g.process.end(), 0, "a clean end")


if __name__ == "__main__":
    run_case(main)
