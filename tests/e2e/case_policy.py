#!/usr/bin/python3
"""holdfast policy check: decisions, explanations, --role, --certificate, --json, exit codes.  Asks no cluster."""
# seconds: 1
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case  # noqa: E402

POLICY = {
    "version": 1,
    "roles": {
        "reader": {"allow": [{"verbs": ["read"], "paths": ["/"]}]},
        "deployer": {"allow": [{"verbs": ["acquire"], "paths": ["/deploy"]}],
                     "deny": [{"verbs": ["acquire"], "paths": ["/deploy/frozen"]}]},
    },
    "bindings": [{"subject": "*", "roles": ["reader"]},
                 {"certificate": "mount/host-*", "roles": ["deployer"]}],
}


def main(t):
    file = os.path.join(t.directory, "policy.json")
    with open(file, "w") as f:
        json.dump(POLICY, f)

    def run(*words):
        env = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        return subprocess.run([t.program("holdfast"), "policy", "check", *words], env=env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
                              check=False)

    for words, code, text in [
        (("ci", "read", "a"), 0, "allowed: role 'reader' (bound to '*') allows read on everything\n"),
        (("ci", "acquire", "deploy/x"), 1, "denied: nothing allows"),
        (("ci", "acquire", "deploy/x", "--role", "deployer"), 0, "came with the subject"),
        (("ci", "acquire", "deploy/x", "--role", "a", "--role", "deployer"), 0, "deployer"),
        (("ci", "acquire", "deploy/frozen/x", "--role", "deployer"), 1, "denies acquire"),
        (("mount/host-7", "acquire", "/deploy"), 1, "denied"),
        (("mount/host-7", "acquire", "/deploy", "--certificate"), 0, "bound to 'mount/host-*'"),
        (("mount/host-7", "acquire", "/deploy/frozen/a", "--certificate"), 1,
         "denied: role 'deployer' (bound to 'mount/host-*') denies acquire on 'deploy/frozen'"),
        (("mount/host-7", "read", "a", "--certificate"), 1, "nothing allows"),
        (("gateway/host-7", "acquire", "deploy", "--certificate"), 1, "nothing allows"),
        (("ci", "read", "a/../b"), 1, "not a path"),
    ]:
        done = run(file, *words)
        equal(done.returncode, code, f"exit code of {words}")
        check(text in done.stdout, f"{words}: {done.stdout}{done.stderr}")

    for words, code in [
        ((file, "ci", "write", "a"), 2),
        ((file, "ci", "read"), 2),
        ((file, "ci", "read", "a", "b"), 2),
        ((file, "ci", "read", "a", "--token", "1"), 2),
        ((file, "host-7", "read", "a", "--certificate"), 2),
        ((file + ".none", "ci", "read", "a"), 66),
        (("/dev/null", "ci", "read", "a"), 65),
    ]:
        done = run(*words)
        equal(done.returncode, code, f"exit code of {words}")
        check(done.stderr.startswith("holdfast: ") and not done.stdout, f"{words}: {done}")

    with open(file + ".bad", "w") as f:
        f.write('{"version": 1,\n"roles": {"r": {}},\n"bindings": [\n'
                '{"certificate": "host-7", "roles": ["r"]}]}\n')
    done = run(file + ".bad", "ci", "read", "a")
    check(done.returncode == 65 and "line 4: " in done.stderr, f"the line of a mistake: {done}")

    done = run(file, "ci", "acquire", "deploy/x", "--role", "deployer", "--json")
    shown = json.loads(done.stdout)
    equal((shown["allowed"], shown["subject"], shown["roles"], shown["verb"], shown["path"]),
          (True, "ci", ["deployer"], "acquire", "deploy/x"), "--json")
    equal(json.loads(run(file, "ci", "break", "a", "--json").stdout)["allowed"], False, "--json")


run_case(main)
