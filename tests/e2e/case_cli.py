#!/usr/bin/python3
"""The CLI: every subcommand, --json, exit codes; a saved snapshot opens in SQLite."""
# seconds: 10
import os
import shutil
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case  # noqa: E402


def main(t):
    c = t.cluster(3).start()
    s = c.cli_json("status")
    check(isinstance(s, (dict, list)) and s, f"status: {s}")
    text = c.cli("status").stdout
    check("leader" in text, f"status for people: {text}")

    taken = c.cli_json("acquire", "cli/job", "--ttl", "60s", "--owner", "me")
    token = taken["token"]
    equal(c.wait_leader().connect().tokens(b"cli/job"), [token], "token at the node")
    refused = c.cli("acquire", "cli/job", "--ttl", "60s", "--owner", "other", ok=False)
    check(refused.returncode == 1, f"acquire of a held lock: exit {refused.returncode}")
    shown = c.cli("show", "cli/job").stdout
    check("me" in shown and str(token) in shown, f"show: {shown}")
    check(str(token) in str(c.cli_json("show", "cli/job")), "show --json has no token")
    check("job" in c.cli("ls").stdout, "ls")
    check("job" in c.cli("ls", "cli").stdout, "ls PREFIX")
    check("job" in str(c.cli_json("ls")), "ls --json")
    check("job" not in c.cli("ls", "elsewhere", ok=False).stdout, "ls of another prefix")
    c.cli("renew", "cli/job", "--owner", "me")
    wrong = c.cli("renew", "cli/job", "--owner", "other", ok=False)
    check(wrong.returncode == 1, f"renew by another owner: exit {wrong.returncode}")

    image = os.path.join(t.directory, "image.db")
    c.cli("snapshot", "save", image)
    db = sqlite3.connect(f"file:{image}?mode=ro", uri=True)
    equal(db.execute("PRAGMA integrity_check").fetchone()[0], "ok", "integrity of the snapshot")
    check(db.execute("PRAGMA user_version").fetchone()[0] > 0, "the snapshot has no format version")
    rows = db.execute("SELECT lock_id, version FROM lock").fetchall()
    paths = {row[0].decode() if isinstance(row[0], bytes) else row[0]: row[1] for row in rows}
    equal(paths, {"cli/job": token}, "locks in the snapshot")
    db.close()
    if shutil.which("sqlite3"):
        out = subprocess.run(["sqlite3", image, "SELECT count(*) FROM lock"], capture_output=True,
                             text=True, timeout=10, check=False)
        equal(out.stdout.strip(), "1", f"sqlite3 shell ({out.stderr})")

    c.cli("release", "cli/job", "--owner", "me")
    gone = c.cli("release", "cli/job", "--owner", "me", ok=False)
    check(gone.returncode == 1, f"release of a free lock: exit {gone.returncode}")
    token = c.cli_json("acquire", "cli/broken", "--ttl", "60s", "--owner", "me")["token"]
    wrong = c.cli("break", "cli/broken", "--token", token + 1, ok=False)
    check(wrong.returncode == 1, f"break with a wrong token: exit {wrong.returncode}")
    c.cli("break", "cli/broken", "--token", token)
    equal(c.wait_leader().connect().tokens(b"cli/broken"), [], "tokens after break")

    members = c.cli_json("member", "list")
    check(str(c.nodes[2].client_port) in str(members), f"member list: {members}")
    check("voter" in c.cli("member", "list").stdout, "member list for people")
    other = c.followers()[0].id
    c.cli_json("leader", "transfer", other)

    # Wrong usage is 2; a cluster that isn't there is neither success nor refusal.
    for wrong in (["nonsense"], ["acquire"], ["break", "x"], ["member", "fly"], ["acquire", "a//b"],
                  ["status", "--nonsense"]):
        code = c.cli(*wrong, ok=False).returncode
        check(code == 2, f"holdfast {' '.join(wrong)}: exit {code}, not 2")
    away = c.cli("show", "x", "--timeout", "1s", cluster=f"127.0.0.1:{t.free_port('127.0.0.1')}",
                 ok=False)
    check(away.returncode not in (0, 1, 2) and away.stderr,
          f"no cluster: exit {away.returncode}, {away.stderr!r}")
    for word in ("--help", "--version"):
        done = subprocess.run([t.program("holdfast"), word], capture_output=True, text=True,
                              timeout=10, check=False)
        check(done.returncode == 0 and done.stdout, f"holdfast {word}")
    if os.path.exists("/dev/fuse"):
        m = c.mount("cli")
        os.close(m.acquire("through"))
        done = subprocess.run([t.program("holdfast"), "ls"], capture_output=True, text=True,
                              timeout=20, cwd="/", check=False,
                              env=dict(os.environ, HOLDFAST_MOUNT=m.dir))
        if done.returncode == 0:
            check("through" in done.stdout, f"ls through a mount: {done.stdout}")
        os.unlink(m.path("through"))


if __name__ == "__main__":
    run_case(main)
