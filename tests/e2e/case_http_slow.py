#!/usr/bin/python3
"""The HTTP API and clients that are slow, dead, many or gone: others go on, waiting costs no thread,
and who hangs up leaves no waiter and no hold."""
# seconds: 40
# sanitized: no
import os
import random
import resource
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import check, equal, run_case, wait_for  # noqa: E402
from gateway import Events, Gateway, problem, read_answer, request  # noqa: E402

N_LONG_POLLS = 1000


def reset(s):
    """Close with a reset, as a crash does."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def closed(s):
    """Did the gateway close it?"""
    s.settimeout(0)
    try:
        return s.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def works(g, name):
    equal(g.acquire(name, "me").status, 200, "others acquire")
    equal(g.get("/locks/" + name).status, 200, "others read")
    equal(g.release(name, "me").status, 200, "others release")


def slow_clients(g):
    """Heads and bodies that come byte by byte, and connections that say nothing."""
    head = request("POST", "/locks/acquire", {"lock_id": "slow/x", "owner_id": "me", "ttl": 30})
    cut = head.index(b"\r\n\r\n") + 4
    silent = [g.socket() for _ in range(60)]
    slow_heads = [g.socket() for _ in range(60)]
    slow_bodies = [g.socket() for _ in range(60)]
    used = [g.socket() for _ in range(5)]  # A good request, then silence.
    for s in slow_bodies:
        s.sendall(head[:cut])
    for s in used:
        s.sendall(request("GET", "/healthz"))
        equal(read_answer(s).status, 200, "before the silence")
    began = time.monotonic()
    at = 0
    while time.monotonic() - began < 60:
        for group, data in ((slow_heads, head[:20] + b"x" * 4096), (slow_bodies, head[cut:])):
            for s in group:
                try:
                    s.send(data[at % len(data):at % len(data) + 1])
                except OSError:
                    pass  # It has been closed.
        at += 1
        works(g, "slow/other")
        if all(map(closed, silent + slow_heads + slow_bodies)):
            break
        time.sleep(0.5)
    for what, group in (("silent", silent), ("slow head", slow_heads), ("slow body", slow_bodies)):
        check(all(map(closed, group)), f"{what}: connections are still open after a minute")
    check(g.metric("holdfast_gateway_slow_connections_closed_total") >= 180, "they were counted")
    equal(g.get("/locks/slow/x").status, 404, "no half request did anything")
    for s in used:  # These may be idle for longer.
        s.sendall(request("GET", "/healthz"))
        equal(read_answer(s).status, 200, "behind the silence")
        s.close()


def slow_reader(g):
    """Somebody who takes no answers, and somebody who takes no events."""
    for i in range(40):
        g.acquire(f"r/{i}", "me" * 30, note="n" * 250)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect((g.host, g.port))
    for _ in range(40):
        try:
            s.settimeout(0.2)
            s.sendall(request("GET", "/locks?prefix=r/"))
        except OSError:
            break
    works(g, "slow/other")
    e = socket.socket()
    e.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    e.connect((g.host, g.port))
    e.sendall(request("GET", "/locks/r/events"))
    wait_for("the stream", 10, lambda: g.metric("holdfast_gateway_event_streams") == 1)

    burst = b"".join(request("POST", "/locks/renew", {"lock_id": f"r/{i % 40}", "ttl": 30,
                                                      "owner_id": "me" * 30}) for i in range(400))

    def let_go():
        with g.socket() as renewing:  # All at once, answered in order.
            renewing.sendall(burst)
            got = b""
            while got.count(b"HTTP/1.1 200") < 400:
                part = renewing.recv(65536)
                check(part, f"a renewal was not answered: {got[-300:]}")
                got += part
        return g.metric("holdfast_gateway_event_streams") == 0

    wait_for("the stream that nobody reads to be let go", 60, let_go)
    reset(s)
    reset(e)


def full_house(c):
    """More idle connections than there may be: they make room."""
    g = Gateway(c, "small", options=("--no-auth", "--connections-max", "64")).wait_ready()
    idle = []
    for _ in range(200):
        idle.append(g.socket())
    works(g, "full/other")
    check(g.metric("holdfast_gateway_idle_connections_evicted_total") > 100, "some were evicted")
    for s in idle:
        s.close()
    works(g, "full/other")
    equal(g.process.end(), 0, "a clean end")


def long_polls(g):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    for i in range(100):
        equal(g.acquire(f"poll/{i}", "holder", ttl=300).status, 200, "held")
    works(g, "poll/other")
    g.metric("holdfast_gateway_waiting")  # The first scrape begins the threads that read /proc.
    threads = g.n_threads()
    polls = [g.send_acquire(f"poll/{i % 100}", f"w{i}", wait=300) for i in range(N_LONG_POLLS)]
    wait_for("all to wait", 60, lambda: g.metric("holdfast_gateway_waiting") == N_LONG_POLLS)
    wait_for("all to be queued", 30, lambda: sum(
        x["waiters"] for x in g.get("/locks?prefix=poll/&limit=1000").json["locks"]) == N_LONG_POLLS)
    equal(g.n_threads(), threads, f"threads with {N_LONG_POLLS} long polls")
    works(g, "poll/other")
    # The first of each queue is granted; of the rest, half go with a FIN, half with a reset.
    for i in range(100):
        g.release(f"poll/{i}", "holder")
    for s in polls[:100]:
        equal(read_answer(s).status, 200, "the first in line")
        s.close()
    for i, s in enumerate(polls[100:]):
        if i % 2:
            reset(s)
        else:
            s.close()
    wait_for("nobody to wait", 60, lambda: g.metric("holdfast_gateway_waiting") == 0)
    wait_for("no waiter to be left", 60, lambda: all(
        x["waiters"] == 0 for x in g.get("/locks?prefix=poll/&limit=1000").json["locks"]))
    equal({x["owner_id"] for x in g.get("/locks?prefix=poll/&limit=1000").json["locks"]},
          {f"w{i}" for i in range(100)}, "the holders are those that were told")
    for i in range(100):
        equal(g.release(f"poll/{i}", f"w{i}").status, 200, "release")
    equal(g.get("/locks?prefix=poll/").json["locks"], [], "no hold is left")


def hang_up_races(one, two):
    """A waiter hangs up just when it is granted, and its owner asks again at the other gateway.  What
    that answer says must hold: no late undoing may take the lock away."""
    undone = kept = 0
    lasting = threading.local()

    def release():
        lasting.answer = one.release("race/x", "holder")

    for i in range(150):
        equal(one.acquire("race/x", "holder", ttl=60).status, 200, "held")
        s = one.send_acquire("race/x", "waiter", ttl=60, wait=60)
        wait_for("the waiter", 10, lambda: one.get("/locks/race/x").json["waiters"] == 1, pause=0.001)
        t = threading.Thread(target=release)
        t.start()
        time.sleep(random.random() * 0.004)
        reset(s)
        a = two.acquire("race/x", "waiter", ttl=60, wait=random.choice([0, 10]))
        t.join()
        if a.status == 200:
            time.sleep(0.01 if i % 10 else 0.1)
            equal(two.get("/locks/race/x").json["version"], a.json["token"],
                  "what was granted is held")
            equal(two.release("race/x", "waiter").status, 200, "and can be released")
            kept += 1
        else:
            undone += 1
        wait_for("nothing to be left behind", 20, lambda: two.get("/locks/race/x").status == 404,
                 pause=0.002)
    check(kept > 0, f"{kept} kept, {undone} not")


def drain(g, c):
    """SIGTERM: what was accepted is finished; waiters get an answer and leave the queue."""
    equal(g.acquire("drain/x", "me", ttl=60).status, 200, "held")
    waiter = g.send_acquire("drain/x", "you", wait=60)
    wait_for("the waiter", 10, lambda: g.get("/locks/drain/x").json["waiters"] == 1)
    events = Events(g, "/locks/drain/x/events")
    events.until("state")
    idle = g.connection()
    equal(g.get("/healthz", connection=idle).status, 200, "kept alive")
    late = g.socket()  # Its request is half there.
    late.sendall(request("GET", "/locks/drain/x")[:30])
    time.sleep(0.2)
    code = threading.Thread(target=lambda: equal(g.process.end(), 0, "a clean end"))
    code.start()
    d = problem(read_answer(waiter), 503, "stopping", "a waiter")
    check("another" in d["detail"], f"{d}")
    while events.next() is not None:
        pass
    code.join()
    check(not g.process.alive(), "it ended")
    with c.wait_leader().connect() as w:
        wait_for("the waiter to leave the queue", 10, lambda: len(w.tokens(b"drain/x")) == 1)
    g.start()
    g.wait_ready()
    equal(g.get("/locks/drain/x").json["waiters"], 0, "no waiter is left")
    equal(g.release("drain/x", "me").status, 200, "what was held is held")
    for s in (waiter, late):
        s.close()


def main(t):
    c = t.cluster(3).start()
    one, two = Gateway(c, "1").wait_ready(), Gateway(c, "2").wait_ready()
    slow_clients(one)
    slow_reader(one)
    full_house(c)
    long_polls(two)
    hang_up_races(one, two)
    drain(one, c)
    for g in (one, two):
        equal(g.process.end(), 0, "a clean end")
    c.wait_digests_equal()


if __name__ == "__main__":
    run_case(main)
