#!/usr/bin/python3
"""A gateway that speaks TLS with its nodes."""
# seconds: 10
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from case_http_tls import alive, refused  # noqa: E402
from cluster import equal, run_case, wait_for  # noqa: E402
from gateway import Events, Gateway  # noqa: E402


def main(t):
    c = t.cluster(3, tls=True).start()
    directory = c.tls("gateway/web")
    g = Gateway(c, "cluster", options=("--no-auth", "--tls", directory)).wait_ready()
    equal(g.acquire("c/x", "me").status, 200, "through TLS")
    e = Events(g, "/locks/c/x/events")
    equal(e.until("state")["owner_id"], "me", "events through TLS")
    g.process.signal(signal.SIGHUP)
    wait_for("the certificate to be read again", 10,
             lambda: f"file=\"{directory}\"" in g.process.text())
    equal(g.release("c/x", "me").status, 200, "behind it")
    equal(e.until("ended")["reason"], "released", "events behind it")
    e.close()
    equal(g.process.end(), 0, "a clean end")
    clear = Gateway(c, "clear", options=("--no-auth", "--timeout", "1s"))
    wait_for("it to serve", 20, lambda: alive(clear))
    equal(clear.acquire("c/x", "me").status, 503, "in the clear no node answers")
    equal(clear.process.end(), 0, "a clean end")
    refused(t, ["--cluster", c.addresses(), "--listen", "127.0.0.1:0", "--no-auth", "--tls",
                os.path.join(t.directory, "nowhere")], 1, "nowhere")


if __name__ == "__main__":
    run_case(main)
