#!/usr/bin/python3
"""A trace followed from an HTTP client through the gateway to the node that did it, by way of a collector
(OTLP/HTTP JSON, read strictly, and by OpenTelemetry's own classes); traceparent in and out; a collector
that is away, slow or unwilling holds nobody up, and what is lost is counted."""
# seconds: 30
# sanitized: no
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import fields  # noqa: E402
import npm  # noqa: E402
from cluster import check, equal, run_case, wait_for  # noqa: E402
from collector import Collector  # noqa: E402
from gateway import Gateway  # noqa: E402
from wire import field  # noqa: E402

PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])")


def parent(n, flags="01", span="00f067aa0ba902b7"):
    return f"00-{n:032x}-{span}-{flags}", f"{n:032x}"


def traced(answer):
    m = PARENT.fullmatch(answer.headers.get("traceparent", ""))
    check(m, f"traceparent of the answer: {answer.headers}")
    return m.groups()


def one(spans, **having):
    found = [s for s in spans if all(getattr(s, k) == v for k, v in having.items())]
    equal(len(found), 1, f"spans with {having} among {spans}")
    return found[0]


def followed(t, c, g, collector):
    """curl -> gateway -> node."""
    header, trace = parent(0x1001)
    done = subprocess.run(["curl", "-sS", "-i", "-H", f"traceparent: {header}", "-H", "tracestate: congo=t61",
                           "-H", "tracestate: rojo=1", "-d",
                           '{"lock_id":"jobs/a","owner_id":"me","ttl":30}',
                           f"http://127.0.0.1:{g.port}/locks/acquire"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=True)
    check("200 OK" in done.stdout and f"traceparent: 00-{trace}-" in done.stdout, done.stdout)
    spans = collector.wait(trace, 3)
    equal(len(spans), 3, f"spans {spans}")
    server = one(spans, service="holdfast-gateway", kind=2)
    client = one(spans, service="holdfast-gateway", kind=3)
    node = one(spans, service="holdfastd")
    equal((server.parent, server.name, server.remote), ("00f067aa0ba902b7", "POST /locks/acquire", True), "server")
    equal((client.parent, client.name, client.remote), (server.id, "acquire", False), "client")
    equal((node.parent, node.name, node.kind, node.remote), (client.id, "acquire", 2, True), "node")
    for s in spans:
        equal(s.state, "congo=t61,rojo=1", "tracestate")
        check(not s.error, f"{s}")
    check(server.begin <= client.begin and client.end <= server.end, "the call to the store is within the call")
    equal(server.attributes["http.response.status_code"], 200, "status")
    equal(node.attributes["holdfast.lock"], "jobs/a", "lock")
    equal(node.attributes["holdfast.result"], "ok", "result")
    check(node.attributes["holdfast.token"] > 0 and node.events["committed"][1]["holdfast.index"] > 0, f"{node}")
    equal(node.attributes["holdfast.node"], c.leader().id, "the node that answered")
    # The node's audit line has the trace; its log has it, too.
    leader = c.leader()
    line = wait_for("the audit line", 20, lambda: [a for a in audits(t, leader.id)
                                                   if a.get("trace_id") == trace.encode()])
    equal((line[0]["event"], line[0]["path"]), (b"grant", b"jobs/a"), "audit")
    check(f"trace_id={trace}" in leader.process.text(), "the node's log names it")
    check(f"trace_id={trace}" in g.process.text(), "the gateway's log names it")


def audits(t, number):
    with open(os.path.join(t.directory, f"audit{number}.log"), "rb") as f:
        return fields.lines(f.read())


def headers(g, collector):
    """What is taken up, and what begins a new trace."""
    header, trace = parent(0x2001)
    a = g.get("/locks/jobs/a", headers={"traceparent": header})
    got, span, flags = traced(a)
    equal((got, flags), (trace, "01"), "taken up")
    spans = collector.wait(trace, 3)
    equal(one(spans, service="holdfast-gateway", kind=2).id, span, "the answer names the gateway's span")
    equal(one(spans, service="holdfastd").name, "SHOW", "a read")
    check("read index confirmed" in one(spans, service="holdfastd").events, "with its round")
    # Not sampled: passed on as it is, recorded by nobody.
    header, trace = parent(0x2002, "00")
    equal(traced(g.get("/locks/jobs/a", headers={"traceparent": header})), (trace, header[36:52], "00"), "unsampled")
    # A later version; its further fields.
    _, trace = parent(0x2003)
    equal(traced(g.get("/locks/jobs/a", headers={"traceparent": f"42-{trace}-00f067aa0ba902b7-01-what.ever"}))[0],
          trace, "a later version")
    equal(traced(g.get("/locks/jobs/a"))[2], "00", "none: a new one, not recorded")
    seen = set()
    for bad in ("", "00", f"ff-{trace}-00f067aa0ba902b7-01", f"00-{trace}-0000000000000000-01",
                f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{trace}-00f067aa0ba902b7-01-x",
                f"00-{trace.upper().replace('0', 'A')}-00f067aa0ba902b7-01", "x" * 4000):
        got, _, flags = traced(g.get("/locks/jobs/a", headers={"traceparent": bad}))
        check(got != trace and got not in seen and flags == "00", f"{bad}: {got}")
        seen.add(got)
    s = g.connection()
    s.putrequest("GET", "/locks/jobs/a")
    for n in (0x2004, 0x2005):
        s.putheader("traceparent", parent(n)[0])
    s.endheaders()
    r = s.getresponse()
    r.read()
    got = r.getheader("traceparent")[3:35]
    check(got not in (parent(0x2004)[1], parent(0x2005)[1]), "two of them are none")
    s.close()
    # Refusals and what is no lock's business have it as well.
    header, trace = parent(0x2006)
    for method, path, status in (("GET", "/nothing", 404), ("DELETE", "/locks/x", 405), ("GET", "/healthz", 200),
                                 ("POST", "/locks/acquire", 400)):
        a = g.call(method, path, headers={"traceparent": header})
        equal((a.status, traced(a)[0]), (status, trace), f"{method} {path}")
    wait_for("the recorded ones: those about locks", 20,
             lambda: {s.attributes["http.response.status_code"] for s in collector.of(trace)} == {405, 400})


def processes(t, c, collector, mount):
    """TRACEPARENT of the CLI and of `holdfast run`, which gives its command its own."""
    header, trace = parent(0x3001)
    env = dict(os.environ, TRACEPARENT=header, TRACESTATE="a=b")
    run = [t.program("holdfast")]
    subprocess.run([*run, "show", "jobs/a", "--cluster", c.addresses()], env=env, check=True, timeout=30,
                   stdout=subprocess.DEVNULL)
    spans = collector.wait(trace, 1)
    equal((spans[0].service, spans[0].parent, spans[0].name), ("holdfastd", header[36:52], "SHOW"), "the CLI's read")
    header, trace = parent(0x3002)
    env["TRACEPARENT"] = header
    out = subprocess.run([*run, "run", "--otlp", collector.url, mount.path("run"), "--", "sh", "-c",
                          'echo "$TRACEPARENT $TRACESTATE"'], env=env, check=True, timeout=60,
                         capture_output=True, text=True).stdout.split()
    equal(out[1], "a=b", "tracestate")
    spans = collector.wait(trace, 5)  # The release, too.
    own = one(spans, service="holdfast", name="run")
    equal((out[0], own.parent), (f"00-{trace}-{own.id}-01", header[36:52]), "the command's own")
    acquire = one(spans, service="holdfast", name="acquire")
    equal(acquire.parent, own.id, "what run asks the cluster is below its span")
    equal(one(spans, service="holdfastd", name="acquire").parent, acquire.id, "and the node's below that")
    # Without an exporter the command still has a place of its own in the trace.
    out = subprocess.run([*run, "run", mount.path("run"), "--", "sh", "-c", 'echo "$TRACEPARENT"'], env=env,
                         check=True, timeout=60, capture_output=True, text=True).stdout.strip()
    m = PARENT.fullmatch(out)
    check(m and m.group(1) == trace and m.group(2) != header[36:52], out)
    for bad in ("", "rubbish"):
        env["TRACEPARENT"] = bad
        out = subprocess.run([*run, "run", mount.path("run"), "--", "sh", "-c", 'echo "<$TRACEPARENT>"'], env=env,
                             check=True, timeout=60, capture_output=True, text=True).stdout.strip()
        equal(out, "<>", "what is none is not passed on")


def roots(c, collector, mount):
    """A mount records a share of what it asks the cluster; here all of it."""
    os.close(mount.acquire("root"))
    os.unlink(mount.path("root"))

    def found():
        with collector.mutex:
            mine = [s for s in collector.spans if s.service == "mount.holdfast" and s.name == "acquire"]
        return [s for s in mine if s.attributes["holdfast.lock"] == "root"]
    client = wait_for("the mount's span", 30, found)[0]
    check(client.parent is None and client.kind == 3, f"{client}")
    node = one(collector.wait(client.trace, 2), service="holdfastd")
    equal(node.parent, client.id, "the node's span")


def schema(t, collector):
    """By OpenTelemetry's own definition."""
    directory = npm.install(t, "otlp")
    bodies = os.path.join(t.directory, "bodies.json")

    def validate(what):
        with open(bodies, "w") as f:
            json.dump(what, f)
        return subprocess.run(["node", os.path.join(directory, "validate.mjs"), bodies], capture_output=True,
                              stdin=subprocess.DEVNULL, text=True, timeout=60, check=False)
    check(len(collector.bodies) > 2, "nothing to validate")
    done = validate(collector.bodies)
    check(done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-2000:]}")
    # It must be able to say no.
    for old, new in (('"kind"', '"Kind"'), ('"startTimeUnixNano": "1', '"startTimeUnixNano": "x'),
                     ('"stringValue"', '"string_value"'), ('"code": 2', '"code": "error"'),
                     ('"traceId": "', '"traceId": "g')):
        text = json.dumps(collector.bodies)
        if old in text:
            check(validate(json.loads(text.replace(old, new, 1))).returncode != 0, f"{new} passed")


def unwilling(t, c):
    """Away, slow, refusing: calls are as quick as ever, spans are dropped and counted, and it gets better."""
    away = t.free_port("127.0.0.1")
    slow = Collector(answer="hang")
    busy = Collector(answer=lambda n: 503 if n < 2 else 200, headers={"Retry-After": "1"})
    no = Collector(answer=400)
    gateways = {}
    for name, url in (("away", f"http://127.0.0.1:{away}"), ("slow", slow.url), ("busy", busy.url), ("no", no.url)):
        gateways[name] = Gateway(c, name=name, options=("--no-auth", "--otlp", url, "--trace-ratio", "1"))
    for name, g in gateways.items():
        g.wait_ready()
        connection = g.connection()
        for i in range(100):
            equal(g.get("/locks/jobs/a", connection=connection).status, 200, f"{name}: a read")
        connection.close()
    wait_for("a collector that is busy to be asked again", 60, lambda: gateways["busy"].metric(
        "holdfast_gateway_spans_exported_total") >= 200)
    equal(gateways["busy"].metric("holdfast_gateway_spans_dropped_total"), 0, "none was lost to the busy one")
    wait_for("a refusal to count", 30, lambda: gateways["no"].metric("holdfast_gateway_spans_dropped_total") >= 200)
    check(slow.n_requests >= 1, "the slow one was asked")
    g = gateways["slow"]
    connection = g.connection()
    n = 0
    while g.metric("holdfast_gateway_spans_dropped_total") == 0:
        for i in range(500):
            equal(g.get("/locks/jobs/a", connection=connection).status, 200, "a read with a full queue")
        n += 500
        check(n <= 20000, "a queue without a bound")
    connection.close()
    recorded = g.metric("holdfast_gateway_spans_total")
    lost = g.metric("holdfast_gateway_spans_dropped_total")
    check(g.metric("holdfast_gateway_spans_waiting") <= 4096 and lost < recorded, f"{recorded} {lost}")
    for name, g in gateways.items():
        began = time.monotonic()
        equal(g.process.end(30), 0, f"{name}: a clean end")
        check(time.monotonic() - began < 20, f"{name}: its end took long")
    for collector in (slow, busy, no):
        collector.close()
    check(not busy.wrong and not no.wrong, f"{busy.wrong[:1]} {no.wrong[:1]}")


def secured(t, c):
    """https: with the authority that is named, and with no other."""
    directory = os.path.join(t.directory, "https")
    subprocess.run([t.program("holdfast"), "cert", directory, "gateway/collector=127.0.0.1"], check=True, timeout=30,
                   stdout=subprocess.DEVNULL)
    collector = Collector(tls=os.path.join(directory, "gateway-collector"))
    ca = os.path.join(directory, "ca.crt")
    known = Gateway(c, "known", options=("--no-auth", "--otlp", collector.url, "--otlp-ca", ca)).wait_ready()
    strange = Gateway(c, "strange", options=("--no-auth", "--otlp", collector.url)).wait_ready()
    header, trace = parent(0x4001)
    for g in (known, strange):
        equal(g.get("/locks/jobs/a", headers={"traceparent": header}).status, 200, "a read")
    wait_for("the refusal to be told", 30, lambda: "spans can't be exported" in strange.process.text())
    spans = collector.wait(trace, 2)
    equal({s.service for s in spans}, {"holdfast-gateway"}, "over TLS")
    for g in (known, strange):
        equal(g.process.end(30), 0, "a clean end")
    equal(len(collector.of(trace)), 2, "a collector of another authority gets nothing")
    collector.close()


def on_the_wire(c):
    """A request whose trace is malformed, or that has fields of a newer version, is done all the same."""
    trace = field(1, bytes(range(16))) + field(2, bytes(range(8))) + field(3, 1)
    with c.wait_leader().connect() as client:
        client.open_session()
        for i, extra in enumerate((field(8, trace), field(8, b"\xff"), field(8, trace[:-1]), field(8, b"x" * 40000),
                                   field(8, trace) + field(99, 7), field(77, b"new") + field(8, trace))):
            client.extra = extra
            equal(client.acquire(f"wire/{i}", "me")["code"], "ok", f"{extra[:40]}")
            equal(len(client.tokens(f"wire/{i}")), 1, f"{extra[:40]}")


def options(t):
    """What can't be meant is refused at the start."""
    gateway = [t.program("holdfast-gateway"), "--listen", "127.0.0.1:0", "--cluster", "127.0.0.1:1", "--no-auth"]
    node = [t.program("holdfastd"), "--id", "1", "--data", os.path.join(t.directory, "none"),
            "--member", "1=127.0.0.1:1,127.0.0.1:2"]
    for argv in (gateway, node):
        for more, word in ((["--otlp", "http://collector.example:4318"], "https"), (["--otlp", "rubbish"], "URL"),
                           (["--trace-ratio", "0.5"], "--otlp"), (["--trace-ratio", "2"], "from 0 to 1"),
                           (["--audit", ""], "")):
            done = subprocess.run([*argv, *more], capture_output=True, text=True, timeout=30, check=False)
            check(done.returncode == 2 and word in done.stderr, f"{more}: {done.returncode} {done.stderr}")
    done = subprocess.run([*gateway, "--audit", "/nowhere/audit"], capture_output=True, text=True, timeout=30,
                          check=False)
    check(done.returncode == 1 and "/nowhere/audit" in done.stderr, done.stderr)


def main(t):
    collector = Collector()
    c = t.cluster(3)
    for node in c.nodes.values():
        node.start(options=("--otlp", collector.url, "--log-level", "debug", "--audit",
                            os.path.join(t.directory, f"audit{node.id}.log")))
    c.wait_leader()
    g = Gateway(c, options=("--no-auth", "--otlp", collector.url, "--log-level", "debug")).wait_ready()
    mount = c.mount("m", options=f"ttl=5s,timeout=3s,otlp={collector.url},trace_ratio=1")
    followed(t, c, g, collector)
    headers(g, collector)
    processes(t, c, collector, mount)
    roots(c, collector, mount)
    unwilling(t, c)
    secured(t, c)
    on_the_wire(c)
    equal(g.process.end(), 0, "a clean end")
    equal(mount.unmount(), 0, "unmounted")
    schema(t, collector)
    check(not collector.wrong, f"not OTLP: {collector.wrong[:1]}")
    collector.close()
    options(t)


if __name__ == "__main__":
    run_case(main)
