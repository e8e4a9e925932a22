"""The protocol of Holdfast by hand: a second implementation, for tests only.

It shares no code with the client library, so that a test which speaks to one certain node sees
what that node says, without redirection, repetition or a cache.  Numbers: raftstore/wire.
"""
import socket
import ssl
import struct

OP = {"session-open": 1, "keepalive": 2, "session-close": 3, "acquire": 4, "renew": 6,
      "release": 7, "break": 10, "mkdir": 11, "rename": 15}
CODE = {0: "ok", 1: "queued", 2: "conflict", 3: "timeout", 4: "canceled", 5: "deadlock",
        6: "no session", 7: "not held", 8: "not owner", 9: "limit", 10: "invalid"}
FAILURE = {0: "UNKNOWN", 1: "NOT_LEADER", 2: "BUSY", 3: "BAD_REQUEST", 4: "NO_QUORUM",
           5: "VERSION", 6: "NOT_FOUND", 7: "SHUTTING_DOWN", 8: "REFUSED", 9: "DENIED"}
ROLE = {0: "standby", 1: "voter", 2: "spare"}
UINT64_MAX = 2**64 - 1

STATUS_FIELDS = {1: "node_id", 2: "state", 3: "term", 4: "leader_id", 5: "commit_index",
                 6: "applied_index", 7: "last_index", 8: "first_index", 9: "digest_lo",
                 10: "digest_hi", 11: "snapshot_index", 15: "stall_max_us",
                 16: "snapshot_stall_max_us", 17: "snapshot_ms", 18: "snapshots",
                 19: "resident_bytes", 20: "entries", 21: "commands", 28: "connections", 29: "elections"}


def varint(value):
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if value:
            out.append(byte | 0x80)
        else:
            out.append(byte)
            return bytes(out)


def field(number, value):
    """One field: int as varint, bytes or str as length-delimited; None and 0 are left out."""
    if value is None or value == 0 and not isinstance(value, (bytes, str)):
        return b""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def decode(data):
    """A message as {field number: [values]}; nested messages stay bytes."""
    out = {}
    at = 0

    def take_varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(data):
        key = take_varint()
        kind = key & 7
        if kind == 0:
            value = take_varint()
        elif kind == 1:
            value = struct.unpack_from("<Q", data, at)[0]
            at += 8
        elif kind == 2:
            size = take_varint()
            value = data[at:at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")
        out.setdefault(key >> 3, []).append(value)
    return out


def one(message, number, default=0):
    return message.get(number, [default])[-1]


class Failure(Exception):
    """The node answered with a Failure frame."""

    def __init__(self, body):
        m = decode(body)
        self.code = FAILURE.get(one(m, 1), "?")
        self.text = one(m, 2, b"").decode(errors="replace")
        self.leader_id = one(m, 3)
        super().__init__(f"{self.code}: {self.text}")


class Client:
    """One connection to one node.  `tls`: a directory with ca.crt, tls.crt and tls.key."""

    def __init__(self, host, port, timeout=5.0, tls=None, client_host="test"):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.create_default_context(cafile=tls + "/ca.crt")
            context.check_hostname = False  # A node is known by its URI, not by a DNS name.
            context.load_cert_chain(tls + "/tls.crt", tls + "/tls.key")
            context.set_alpn_protocols(["holdfast/1"])
            self.socket = context.wrap_socket(self.socket)
        self.buffer = b""
        self.id = 0
        self.extra = b""  # Behind each request: further fields of its ClientFrame.
        self.session_id = 0
        self.seq = 0
        hello = field(1, 1) + field(2, 1) + field(3, "holdfast-test 1") + field(4, client_host)
        self.send(field(2, hello))
        frame = self.receive()
        if 2 not in frame:
            raise Failure(one(frame, 6, b""))
        self.hello = decode(one(frame, 2))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, body):
        self.socket.sendall(struct.pack("<I", len(body)) + body)

    def receive(self):
        while True:
            if len(self.buffer) >= 4:
                size = struct.unpack_from("<I", self.buffer)[0]
                if len(self.buffer) >= 4 + size:
                    body = self.buffer[4:4 + size]
                    self.buffer = self.buffer[4 + size:]
                    return decode(body)
            part = self.socket.recv(1 << 20)
            if not part:
                raise ConnectionError("closed by the node")
            self.buffer += part

    def send_request(self, number, body):
        self.id += 1
        self.send(field(1, self.id) + varint(number << 3 | 2) + varint(len(body)) + body + self.extra)

    def request(self, number, body, timeout=5.0):
        """Send a request and return the frame that answers it (events are skipped)."""
        self.socket.settimeout(timeout)
        self.send_request(number, body)
        while True:
            frame = self.receive()
            if one(frame, 1) == self.id:
                if 6 in frame:
                    raise Failure(one(frame, 6))
                return frame

    # ---- queries ----

    def query(self, what, path=b"", timeout=5.0):
        return decode(one(self.request(4, field(1, what) + field(2, path), timeout), 4, b""))

    def status(self, timeout=2.0):
        raw = decode(one(self.query(0, timeout=timeout), 8, b""))
        out = {name: one(raw, number) for number, name in STATUS_FIELDS.items()}
        out["state"] = out["state"].decode() if out["state"] else ""
        counts = decode(one(raw, 12, b""))
        out["locks"], out["holds"], out["sessions"] = one(counts, 1), one(counts, 2), one(counts, 4)
        out["waiters"], out["last_token"] = one(counts, 3), one(counts, 8)
        out["metrics"] = {one(decode(m), 1, b"").decode(): one(decode(m), 2)
                          for m in raw.get(30, [])}
        return out

    def members(self, timeout=5.0):
        out = {}
        for raw in self.query(6, timeout=timeout).get(6, []):
            m = decode(raw)
            out[one(m, 1)] = ROLE[one(m, 4)]
        return out

    def tokens(self, path, timeout=5.0):
        """Tokens of the holds at a path, by a linearizable read of this node."""
        reply = self.query(1, path, timeout)
        node = decode(reply[3][0])
        return [one(decode(h), 1) for h in node.get(11, [])]

    # ---- commands: this node must be the leader ----

    def command_body(self, op, paths=(), seq=None, **numbers):
        if seq is None:
            self.seq += 1
            seq = self.seq
        body = field(1, OP[op]) + field(3, self.session_id)
        if op != "session-open":
            body += field(4, seq) + field(5, seq - 1)
        for path in paths:
            body += field(6, path)
        for name, value in sorted(numbers.items(), key=lambda item: int(item[0][1:])):
            body += field(int(name[1:]), value)
        return body

    def command(self, op, paths=(), timeout=5.0, seq=None, **numbers):
        """numbers: fN=value for field N of Command.  Returns the Result as a dict."""
        r = decode(one(self.request(3, self.command_body(op, paths, seq, **numbers), timeout), 3, b""))
        return {"code": CODE.get(one(r, 1), one(r, 1)), "stamp_ns": one(r, 2),
                "session_id": one(r, 3), "token": one(r, 4), "deadline_ns": one(r, 5),
                "index": one(r, 10), "repeated": bool(one(r, 9))}

    def open_session(self, ttl_ms=30000, host="test"):
        r = self.command("session-open", f13=ttl_ms, f19=host)
        self.session_id = r["session_id"]
        return r

    def acquire(self, path, owner, ttl_ms=30000, timeout=5.0, seq=None):
        return self.command("acquire", [path], timeout, seq, f2=1, f7=owner, f9=2, f13=ttl_ms)

    def release(self, path, token, timeout=5.0, seq=None):
        return self.command("release", [path], timeout, seq, f8=token)

    def admin(self, what, timeout=20.0, **numbers):
        body = field(1, what)
        for name, value in numbers.items():
            body += field(int(name[1:]), value)
        return decode(one(self.request(7, body, timeout), 9, b""))
