#!/usr/bin/python3
"""A real Prometheus scrapes nodes, a mount and a gateway: promtool is content with what each says,
all targets are up, and what dashboard and alert rules ask for is there, with its labels."""
# seconds: 20
# sanitized: no
import fcntl
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import telemetry  # noqa: E402
import yaml  # noqa: E402
from cluster import Cluster, Failed, Process, check, equal, run_case, wait_for  # noqa: E402
from gateway import Gateway  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DASHBOARD = os.path.join(ROOT, "packaging/grafana/holdfast.json")
RULES = os.path.join(ROOT, "packaging/prometheus/holdfast.rules.yml")
EXAMPLE = os.path.join(ROOT, "packaging/prometheus/prometheus.yml")
HOST = "127.0.0.1"

# Words of PromQL; whatever else stands in an expression is a metric, a label or a number.
SELECTOR = re.compile(r"\b((?:holdfast|process)_[a-z0-9_]+|up)\b(\{[^}]*\})?")
GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left)\s*\(([^)]*)\)")


def promtool(t, name, text):
    """The metrics of one component."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                          text=True, timeout=60, check=False)
    if done.returncode != 0 or done.stderr.strip():
        raise Failed(f"promtool check metrics, {name}: {done.returncode} {done.stdout}{done.stderr}")


class Prometheus:
    def __init__(self, t, targets):
        """targets: {job: [port, ...]}."""
        with open(EXAMPLE) as f:
            config = yaml.safe_load(f)  # As we tell others to do it, but faster.
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
        config["rule_files"] = [RULES]
        equal(sorted(j["job_name"] for j in config["scrape_configs"]), sorted(targets), "jobs")
        for job in config["scrape_configs"]:
            job["static_configs"][0]["targets"] = [f"{HOST}:{p}" for p in targets[job["job_name"]]]
        path = os.path.join(t.directory, "prometheus.yml")
        with open(path, "w") as f:
            yaml.safe_dump(config, f)
        self.url = f"http://{HOST}:{t.free_port(HOST)}"
        self.process = Process(t, "prometheus", [
            "prometheus", "--config.file", path, "--storage.tsdb.path",
            os.path.join(t.directory, "tsdb"), "--web.listen-address", self.url[7:]])
        wait_for("Prometheus", 60, self.ready)

    def ready(self):
        check(self.process.alive(), f"Prometheus ended: {self.process.text()[-1000:]}")
        try:
            with urllib.request.urlopen(self.url + "/-/ready", timeout=5) as r:
                return r.status == 200
        except OSError:
            return False

    def api(self, path, **arguments):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as r:
                return json.load(r)["data"]
        except urllib.error.HTTPError as e:
            raise Failed(f"{path} {arguments}: {e.code} {e.read()[:500]!r}") from None

    def query(self, expression):
        """The series of an instant query."""
        return self.api("query", query=expression)["result"]


def panels_of(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions():
    """[(where it stands, expression)] of dashboard and rules."""
    with open(DASHBOARD) as f:
        dashboard = json.load(f)
    found = [(f"panel '{p['title']}'", t["expr"]) for p in panels_of(dashboard)
             for t in p.get("targets", [])]
    found += [(f"annotation '{a['name']}'", a["expr"]) for a in dashboard["annotations"]["list"]]
    variables = [v for v in dashboard["templating"]["list"] if v["type"] == "query"]
    for v in variables:
        m = re.fullmatch(r"label_values\((\w+), (\w+)\)", v["query"]["query"])
        found.append((f"variable '{v['name']}'", f"count by ({m.group(2)}) ({m.group(1)})"))
    with open(RULES) as f:
        rules = yaml.safe_load(f)
    found += [(f"alert {r['alert']}", r["expr"]) for g in rules["groups"] for r in g["rules"]]
    check(len(found) > 80, f"only {len(found)} expressions")
    ids = [p["id"] for p in panels_of(dashboard)]
    equal(len(ids), len(set(ids)), "ids of panels")
    return [(where, e.replace("$cluster", ".*").replace("$__rate_interval", "10s"))
            for where, e in found]


def check_selectors(prometheus, where, expression):
    """Each metric exists, with the values of labels that are asked for, and has the labels that are
    grouped by.  (What must not be there in a healthy cluster is only asked for by label.)"""
    labels = set()
    for m in SELECTOR.finditer(expression):
        metric, matchers = m.group(1), m.group(2) or ""
        check(matchers.count('"') % 2 == 0, f"{where}: {matchers}")
        got = prometheus.query(metric + re.sub(r',?\s*status=~"5\.\."', "", matchers))
        check(got, f"{where}: nothing is like {metric}{matchers}")
        for series in got:
            labels |= set(series["metric"])
    for m in GROUPING.finditer(expression):
        wanted = {word.strip() for word in m.group(1).split(",")}
        check(wanted <= labels, f"{where}: no label {wanted - labels}")


def check_panels(prometheus, found):
    """What the dashboard shows is there, in all panels: a query that is wrong in the joining of its
    parts finds nothing.  The few that need something to have happened were made happen."""
    for where, expression in found:
        if where.startswith(("panel", "variable")):
            wait_for(f"{where}: {expression}", 30, lambda e=expression: prometheus.query(e), 0.5)


def check_rules(prometheus):
    """All rules are evaluated without an error, and none fires in a healthy cluster but those of a
    machine that is full or slow."""
    def evaluated():
        rules = [r for g in prometheus.api("rules")["groups"] for r in g["rules"]]
        return rules if all(r["health"] != "unknown" for r in rules) else None
    rules = wait_for("the rules to be evaluated", 30, evaluated)
    check(len(rules) > 20, f"{len(rules)} rules")
    for r in rules:
        equal(r["health"], "ok", f"{r['name']}: {r.get('lastError')}")
    loud = {r["name"] for r in rules if r["state"] == "firing"}
    slow = {"HoldfastDiskFull", "HoldfastLoopStalls", "HoldfastLeaderChanges"}
    check(loud <= slow, f"alerts of a healthy cluster: {loud}")


def traffic(c, m, g):
    """Something of everything."""
    for i in range(3):
        fd = m.acquire(f"lease{i}")
        os.close(fd)
        os.unlink(m.path(f"lease{i}"))
    held = os.open(m.path("flock"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    equal(g.acquire("http", "o").status, 200, "acquire")
    equal(g.acquire("http", "p").status, 409, "acquire by another")
    equal(g.release("http", "o").status, 200, "release")
    equal(g.get("/locks/http").status, 404, "show")
    c.cli("show", "flock")
    os.close(held)


def compare(prometheus, c, m, g):
    """What was counted is what was done: three leases, a flock, HTTP; and one acquire refused."""
    wanted = {'holdfast_node_requests_total{kind="acquire",result="ok"}': 5,
              'holdfast_node_requests_total{kind="acquire",result="conflict"}': 1,
              'holdfast_node_request_duration_seconds_count{class="acquire"}': 6,
              'holdfast_mount_operation_duration_seconds_count{operation="create"}': 4,
              'holdfast_gateway_requests_total{call="acquire",status="409"}': 1}

    def counts():
        return {k: sum(float(s["value"][1]) for s in prometheus.query(k)) for k in wanted}
    for times in (1, 2):
        traffic(c, m, g)
        expected = {k: times * n for k, n in wanted.items()}
        try:
            wait_for("the counts", 20, lambda e=expected: counts() == e, 0.5)
        except Failed:
            raise Failed(f"{counts()}, not {expected}") from None


def dies(prometheus, c):
    """A node that is killed is down, and its loss is seen by the leader's metrics."""
    equal(len(prometheus.query('up{job="holdfast-node"} == 1')), 3, "nodes up")
    victim = c.followers()[0]
    victim.kill()
    edge = "holdfast_node_voters_in_touch - floor(holdfast_node_voters / 2) <= 1"
    wait_for("the node to be down", 30,
             lambda: len(prometheus.query('up{job="holdfast-node"} == 0')) == 1, 0.5)
    wait_for("the majority's edge", 30, lambda: prometheus.query(edge), 0.5)
    wait_for("a silent node", 30,
             lambda: prometheus.query("holdfast_node_peer_silence_seconds > 2"), 0.5)


def main(t):
    found = expressions()
    c = Cluster(t, 3, tls=True)
    ports = {n: t.free_port(HOST) for n in c.nodes}
    for number, node in c.nodes.items():
        node.start(options=["--http", f"{HOST}:{ports[number]}", "--snapshot-log-entries", "20",
                            "--audit", os.path.join(t.directory, f"audit{number}")])
    c.wait_leader()
    mount_port = t.free_port(HOST)
    m = c.mount("a", options=f"ttl=30s,timeout=5s,http={HOST}:{mount_port},rate=1000/s")
    g = Gateway(c, options=["--no-auth", "--tls", c.tls("gateway/g"), "--audit",
                            os.path.join(t.directory, "audit")]).wait_ready()
    prometheus = Prometheus(t, {"holdfast-node": list(ports.values()),
                                "holdfast-mount": [mount_port], "holdfast-gateway": [g.port]})

    def all_up():
        targets = prometheus.api("targets")["activeTargets"]
        return len(targets) == 5 and all(x["health"] == "up" for x in targets)
    wait_for("all targets to be up", 30, all_up, 0.5)
    for name, port in (("node", ports[1]), ("mount", mount_port), ("gateway", g.port)):
        promtool(t, name, telemetry.get(port, "/metrics")[2])
        telemetry.metrics(port)
    with open(m.path(".holdfast/metrics")) as f:
        promtool(t, ".holdfast/metrics", f.read())
    compare(prometheus, c, m, g)
    for _ in range(30):  # Enough entries for a snapshot.
        traffic(c, m, g)
        time.sleep(0.1)
    for where, expression in found:
        wait_for_selectors(prometheus, where, expression)
    check_panels(prometheus, found)
    check_rules(prometheus)
    dies(prometheus, c)
    equal(prometheus.process.end(), 0, "exit code of Prometheus")


def wait_for_selectors(prometheus, where, expression):
    """Gauges of the leader may be missing for a moment, when another one leads."""
    end = time.monotonic() + 15
    while True:
        try:
            return check_selectors(prometheus, where, expression)
        except Failed:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    run_case(main)
