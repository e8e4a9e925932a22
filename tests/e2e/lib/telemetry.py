"""What daemons tell of themselves over HTTP: ports for it, and reading it."""
import http.client

import prometheus
from cluster import Failed, wait_for


def get(port, path, method="GET", headers=None, body=None, host="127.0.0.1", timeout=10):
    """(status, headers, text); a connection each."""
    c = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        c.request(method, path, body=body, headers=headers or {})
        r = c.getresponse()
        return r.status, r.headers, r.read().decode()
    finally:
        c.close()


def try_get(port, path):
    """(status, text); None while nobody answers."""
    try:
        status, _, text = get(port, path, timeout=3)
        return status, text
    except (OSError, http.client.HTTPException):
        return None


def metrics(port):
    """{family: Family}, see prometheus.py."""
    status, headers, text = get(port, "/metrics")
    if status != 200 or not headers["Content-Type"].startswith("text/plain; version=0.0.4"):
        raise Failed(f"/metrics: {status} {headers['Content-Type']}")
    return prometheus.parse(text)


def wait_status(port, path, status, seconds=20):
    """Wait for this status; returns the text."""
    def answers():
        got = try_get(port, path)
        return got if got and got[0] == status else None
    return wait_for(f"{path} of port {port} to answer {status}", seconds, answers)[1]
