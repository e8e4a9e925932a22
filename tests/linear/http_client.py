#!/usr/bin/python3
"""Clients of the HTTP API that write their history.

    http_client.py --gateways HOST:PORT,... --name PREFIX --clients N --locks NAME,... --ttl MS
                   --seed N --log FILE        until SIGTERM

Each is a thread with an owner_id of its own, which it uses again and again, as the API allows.
"""
import argparse
import http.client
import json
import os
import random
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from history import Writer  # noqa: E402

stopping = threading.Event()


def client_of(owner):
    """The client behind an owner's text: of a mount's lease "HOST/BOOT/PID.START/COUNT", of flock and
    fcntl one that names no process, of a gateway "http//NAME", of others the name."""
    parts = owner.split("/")
    if len(parts) == 1 or parts[:2] == ["http", ""]:
        return parts[-1]
    pid = parts[2].split(".")[0] if len(parts) == 4 else "0"
    return "p" + pid if pid.isdigit() and pid != "0" else "?"


class Client:
    def __init__(self, options, writer, number):
        self.name = f"{options.name}{number}"
        self.gateways = options.gateways.split(",")
        self.locks = options.locks.split(",")
        self.ttl_ms = options.ttl
        self.random = random.Random(options.seed * 1000 + number)
        self.w = writer
        self.connection = None

    def call(self, method, path, body=None):
        """(status, JSON); status None: nobody knows, 0: it was never sent."""
        for fresh in (self.connection is None, True):
            if self.connection is None:
                host, port = self.random.choice(self.gateways).rsplit(":", 1)
                self.connection = http.client.HTTPConnection(host, int(port), timeout=6)
                try:
                    self.connection.connect()
                    self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                except OSError:
                    self.drop()
                    return 0, {}
            try:
                self.connection.request(method, path, json.dumps(body) if body else None)
                answer = self.connection.getresponse()
                data = answer.read()
                if answer.status == 503:
                    self.drop()
                return answer.status, json.loads(data) if data else {}
            except (http.client.HTTPException, OSError, ValueError):
                self.drop()
                # A read may be asked for again; of what changes things nobody knows.
                if fresh or method != "GET":
                    return None, {}
        return None, {}

    def drop(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def finish(self, n, status, refusals, good):
        """Write an answer; returns whether it was ok (None: unknown)."""
        if status == 200:
            self.w.answer(self.name, n, "ok", **good)
            return True
        if status in refusals:
            self.w.answer(self.name, n, "refused", why=refusals[status])
            return False
        if status == 0:
            self.w.answer(self.name, n, "refused", why="never")
            return False
        if status in (None, 503):
            self.w.answer(self.name, n, "unknown")
            return None
        self.w.answer(self.name, n, "refused", error=f"HTTP-{status}")
        return False

    def acquire(self, lock):
        wait = self.random.random() < 0.3
        body = {"lock_id": lock, "owner_id": self.name, "ttl": self.ttl_ms / 1000}
        if wait:
            body["wait"] = 1
        n = self.w.invoke(self.name, "acquire", lock, by="http", ttl_ms=self.ttl_ms,
                          wait=1 if wait else None)
        sent = self.w.now()
        status, answer = self.call("POST", "/locks/acquire", body)
        seen = None
        if status == 409 and answer.get("owner_id"):
            # Who it is was asked after the refusal: another observation.
            seen = self.w.n[self.name] = n + 1
            self.w.put(f"{sent} i {self.name} {seen} read {lock} by=http")
        ok = self.finish(n, status, {409: "held"}, {"token": answer.get("token")})
        if seen:
            self.w.answer(self.name, seen, "ok", some=1, owner=client_of(answer["owner_id"]))
        return (n, answer["token"], sent) if ok else None

    def change(self, what, lock, n, token):
        by_token = self.random.random() < 0.5
        body = {"lock_id": lock, "owner_id": self.name}
        keys = {}
        if by_token:
            body["token"] = token
        if what == "renew":
            body["ttl"] = self.ttl_ms / 1000
            keys["ttl_ms"] = self.ttl_ms
        # Without a token it is about whatever this owner holds.
        m = self.w.invoke(self.name, what, lock, by="http", token=token if by_token else None, **keys)
        sent = self.w.now()
        status, _ = self.call("POST", "/locks/" + what, body)
        return self.finish(m, status, {409: "gone", 404: "gone"}, {}), sent

    def read(self, lock):
        n = self.w.invoke(self.name, "read", lock, by="http")
        status, answer = self.call("GET", "/locks/" + lock)
        holds = answer.get("holds") or [answer] if status == 200 else []
        if status in (200, 404):
            self.w.answer(self.name, n, "ok", tokens=",".join(
                f"{h['version']}/{client_of(h['owner_id'])}" for h in holds))
        else:
            self.finish(n, status, {}, {})

    def cycle(self):
        lock = self.random.choice(self.locks)
        if self.random.random() < 0.4:
            self.read(lock)
        held = self.acquire(lock)
        if held is None:
            stopping.wait(self.random.uniform(0.0, 0.03))
            return
        n, token, sent = held
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 5))):
            valid = self.ttl_ms * 1000000 - (self.w.now() - sent)
            if valid < 0 or stopping.is_set():
                break
            stopping.wait(self.random.uniform(0, 0.02 if self.random.random() < 0.8 else
                                              self.ttl_ms / 4000))
            if self.random.random() < 0.2:
                self.acquire(lock)
                continue
            ok, at = self.change("renew", lock, n, token)
            if ok is False:
                return
            sent = at if ok else sent
        if self.random.random() < 0.95:
            self.change("release", lock, n, token)

    def run(self):
        while not stopping.is_set():
            self.cycle()


def main():
    parser = argparse.ArgumentParser()
    for name in ("gateways", "name", "locks", "log"):
        parser.add_argument("--" + name, required=True)
    for name in ("clients", "ttl", "seed"):
        parser.add_argument("--" + name, type=int, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    writer = Writer(options.log, time.monotonic_ns)
    clients = [Client(options, writer, i + 1) for i in range(options.clients)]
    threads = [threading.Thread(target=c.run, daemon=True) for c in clients]
    for t in threads:
        t.start()
    stopping.wait()
    for t in threads:
        t.join(20)


if __name__ == "__main__":
    main()
