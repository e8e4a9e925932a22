"""A collector of spans (OTLP/HTTP, JSON) of the test's own: it reads strictly, as the specification has
it, and can be slow, deaf or unwilling."""
import http.server
import json
import re
import ssl
import threading
import time

from cluster import Failed, check, wait_for

HEX = {"traceId": 32, "spanId": 16, "parentSpanId": 16}
NANOS = re.compile(r"[0-9]{1,20}")
SPAN_KEYS = {"traceId", "spanId", "parentSpanId", "traceState", "flags", "name", "kind", "startTimeUnixNano",
             "endTimeUnixNano", "attributes", "events", "status"}


def value_of(value):
    check(isinstance(value, dict) and len(value) == 1, f"an AnyValue has one member: {value}")
    (kind, v), = value.items()
    if kind == "stringValue":
        check(isinstance(v, str), f"stringValue: {v!r}")
        return v
    check(kind == "intValue" and isinstance(v, str) and re.fullmatch(r"-?[0-9]+", v), f"{kind}: {v!r}")
    return int(v)


def attributes_of(attributes):
    found = {}
    for a in attributes:
        check(set(a) == {"key", "value"} and isinstance(a["key"], str) and a["key"], f"KeyValue: {a}")
        check(a["key"] not in found, f"{a['key']} twice")
        found[a["key"]] = value_of(a["value"])
    return found


class Span:
    """One span, read by the rules."""

    def __init__(self, service, o):
        check(set(o) <= SPAN_KEYS, f"unknown members: {set(o) - SPAN_KEYS}")
        for key, size in HEX.items():
            if key in o:
                check(re.fullmatch(f"[0-9a-f]{{{size}}}", o[key]) and set(o[key]) != {"0"}, f"{key}: {o[key]}")
        check("traceId" in o and "spanId" in o and isinstance(o["name"], str) and o["name"], f"a span: {o}")
        check(o["kind"] in (1, 2, 3, 4, 5), f"kind: {o['kind']}")
        for key in ("startTimeUnixNano", "endTimeUnixNano"):
            check(isinstance(o[key], str) and NANOS.fullmatch(o[key]), f"{key}: {o[key]!r}")
        self.service = service
        self.trace, self.id, self.parent = o["traceId"], o["spanId"], o.get("parentSpanId")
        self.name, self.kind, self.state = o["name"], o["kind"], o.get("traceState", "")
        self.begin, self.end = int(o["startTimeUnixNano"]), int(o["endTimeUnixNano"])
        self.attributes = attributes_of(o["attributes"])
        self.events = {}
        for e in o["events"]:
            check(set(e) <= {"timeUnixNano", "name", "attributes"} and NANOS.fullmatch(e["timeUnixNano"]), f"{e}")
            self.events[e["name"]] = (int(e["timeUnixNano"]), attributes_of(e.get("attributes", [])))
            check(self.begin <= int(e["timeUnixNano"]) <= self.end, f"an event outside of its span: {o}")
        status = o["status"]
        check(set(status) <= {"code", "message"} and status.get("code", 0) in (0, 1, 2), f"status: {status}")
        self.error = status.get("code") == 2
        self.message = status.get("message", "")
        check(self.begin <= self.end, "it ends before it begins")
        check(abs(self.end / 1e9 - time.time()) < 3600, "not the wall clock")
        check(o["flags"] & ~0x3ff == 0 and o["flags"] & 0x101 == 0x101, f"flags: {o['flags']}")
        self.remote = bool(o["flags"] & 0x200)

    def __repr__(self):
        return f"<{self.service} {self.name!r} {self.id} of {self.parent} {self.attributes}>"


class Collector:
    """`answer`: a status, "hang" (never answers), or a function of the number of the request."""

    def __init__(self, port=0, answer=200, headers=(), tls=None):
        self.answer, self.headers = answer, dict(headers)
        self.mutex = threading.Lock()
        self.spans, self.bodies, self.wrong = [], [], []
        self.n_requests = 0
        self.over = threading.Event()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):  # pylint: disable=arguments-differ
                pass

            def do_POST(self):  # pylint: disable=invalid-name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = collector.on_request(self.path, self.headers, body)
                if status is None:
                    collector.over.wait(60)
                    self.close_connection = True
                    return
                answer = b'{"partialSuccess":{}}' if status == 200 else b'{"message":"no"}'
                self.send_response(status)
                for k, v in collector.headers.items():
                    self.send_header(k, v)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        if tls:  # A directory with tls.crt and tls.key.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls + "/tls.crt", tls + "/tls.key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def on_request(self, path, headers, body):
        with self.mutex:
            n = self.n_requests
            self.n_requests += 1
        status = self.answer(n) if callable(self.answer) else self.answer
        if status == "hang":
            return None
        try:
            check(path == "/v1/traces", f"path {path}")
            check(headers["Content-Type"] == "application/json", f"type {headers['Content-Type']}")
            parsed = json.loads(body)
            spans = self.read(parsed)
        except (Failed, ValueError, KeyError, TypeError, AttributeError) as e:
            with self.mutex:
                self.wrong.append(f"{e!r}: {body[:600]!r}")
            return 400
        if status == 200:
            with self.mutex:
                self.bodies.append(parsed)
                self.spans += spans
        return status

    @staticmethod
    def read(body):
        found = []
        check(set(body) == {"resourceSpans"}, f"members {set(body)}")
        for r in body["resourceSpans"]:
            check(set(r) == {"resource", "scopeSpans"}, f"members {set(r)}")
            resource = attributes_of(r["resource"]["attributes"])
            check(resource["service.name"] and resource["service.version"], f"{resource}")
            for s in r["scopeSpans"]:
                check(s["scope"]["name"] == "holdfast" and set(s) == {"scope", "spans"}, f"{s['scope']}")
                found += [Span(resource["service.name"], o) for o in s["spans"]]
        return found

    def of(self, trace):
        with self.mutex:
            check(not self.wrong, f"not OTLP: {self.wrong[:1]}")
            return [s for s in self.spans if s.trace == trace]

    def wait(self, trace, n, seconds=30):
        """All spans of a trace, once there are so many."""
        return wait_for(f"{n} spans of {trace}", seconds, lambda: len(self.of(trace)) >= n and self.of(trace))

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
