"""Gateways, and calls to them over plain sockets or http.client."""
import http.client
import json
import socket
import time

from cluster import Failed, Process, check, equal, wait_for


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers  # Lower-case names.
        self.body = body

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"not JSON: {self.body[:300]!r}") from None

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Gateway:
    """A gateway of a cluster; without tokens unless options say otherwise."""

    def __init__(self, cluster, name="1", options=("--no-auth",), nodes=None, env=None, host="127.0.0.1",
                 place=None, port=None):
        self.test = cluster.test
        self.place = place
        self.host = host
        self.port = port or cluster.test.free_port(host)
        self.name = "gateway" + name
        self.argv = [cluster.test.program("holdfast-gateway"), "--listen", f"{self.host}:{self.port}",
                     "--cluster", nodes or cluster.addresses(), *options]
        self.env = env
        self.record = None  # A list gets [method, path, status, content type, body] of each answer.
        self.start()

    def start(self):
        self.process = Process(self.test, self.name, self.argv, self.env, self.place)
        return self

    def wait_ready(self, seconds=20):
        def ready():
            if not self.process.alive():
                raise Failed(f"{self.name} ended: {self.process.last_text()[-600:]}")
            try:
                return self.get("/readyz", timeout=2).status == 200
            except OSError:
                return False
        wait_for(f"{self.name} to be ready", seconds, ready)
        return self

    def connection(self, timeout=30):
        c = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        if self.place:
            with self.place.inside():
                c.connect()
        return c

    def socket(self, timeout=30):
        s = socket.create_connection((self.host, self.port), timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def call(self, method, path, body=None, headers=None, timeout=30, connection=None):
        """One request; body: bytes as they are, anything else as JSON."""
        c = connection or self.connection(timeout)
        try:
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            a = Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
            if self.record is not None:
                self.record.append([method, path, a.status, a.headers.get("content-type"),
                                    a.body.decode()])
            return a
        finally:
            if connection is None:
                c.close()

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def post(self, what, body, **options):
        return self.call("POST", "/locks/" + what, body, **options)

    def acquire(self, lock_id, owner_id, ttl=30, connection=None, timeout=30, headers=None, **more):
        return self.post("acquire", {"lock_id": lock_id, "owner_id": owner_id, "ttl": ttl, **more},
                         connection=connection, timeout=timeout, headers=headers)

    def release(self, lock_id, owner_id, connection=None, headers=None, **more):
        return self.post("release", {"lock_id": lock_id, "owner_id": owner_id, **more},
                         connection=connection, headers=headers)

    def renew(self, lock_id, owner_id, ttl=30, headers=None, **more):
        return self.post("renew", {"lock_id": lock_id, "owner_id": owner_id, "ttl": ttl, **more},
                         headers=headers)

    def metric(self, name):
        """Sum of all series that begin with it."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(name) and line[len(name)] in " {":
                total += float(line.rsplit(" ", 1)[1])
        return total

    def n_threads(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int([x for x in f if x.startswith("Threads:")][0].split()[1])

    def send_acquire(self, lock_id, owner_id, ttl=30, **more):
        """Send an acquire and leave: the socket, whose answer can be read later."""
        s = self.socket()
        s.sendall(request("POST", "/locks/acquire",
                          {"lock_id": lock_id, "owner_id": owner_id, "ttl": ttl, **more}))
        return s


def request(method, path, body=None):
    data = b"" if body is None else json.dumps(body).encode()
    return (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
            .encode() + data)


def read_answer(s, seconds=30):
    """An answer from a socket; None at its end."""
    s.settimeout(seconds)
    r = http.client.HTTPResponse(s)
    try:
        r.begin()
    except (http.client.BadStatusLine, ConnectionError):
        return None
    return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())


def problem(answer, status, name, what):
    """It must be a problem document of this kind."""
    equal(answer.status, status, f"{what}: {answer}")
    equal(answer.headers.get("content-type"), "application/problem+json", f"{what}: content type")
    document = answer.json
    equal(document["type"], "urn:holdfast:problem:" + name, what)
    equal(document["status"], status, what)
    check(document["title"] and document["detail"], f"{what}: {document}")
    return document


class Events:
    """A stream of server-sent events."""

    def __init__(self, gateway, path, headers=None):
        self.connection = gateway.connection(timeout=40)
        self.connection.request("GET", path, headers=headers or {})
        self.response = self.connection.getresponse()
        self.seen = []

    def next(self, seconds=20):
        """The next event as (name, data); None at the end of the stream."""
        end = time.monotonic() + seconds
        name = data = None
        while time.monotonic() < end:
            line = self.response.readline()
            if line == b"":
                return None
            line = line.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = json.loads(line[6:])
            elif line == "" and name is not None:
                self.seen.append(name)
                return name, data
        raise Failed(f"no event within {seconds} s")

    def until(self, name, seconds=20):
        while True:
            event = self.next(seconds)
            if event is None:
                raise Failed(f"the stream ended before '{name}' (seen: {self.seen})")
            if event[0] == name:
                return event[1]

    def close(self):
        self.connection.close()
