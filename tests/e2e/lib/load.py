"""Writes at whoever leads, whose acknowledgements are remembered and can be verified."""
import wire
from cluster import check, equal


class Load:
    """Writes whose acknowledgements are remembered."""

    def __init__(self, c):
        self.c = c
        self.n = 0
        self.tokens = {}

    def write(self, count):
        """So many acknowledged grants, whoever leads."""
        while count > 0:
            try:
                with self.c.wait_leader().connect() as w:
                    w.open_session(60000)
                    while count > 0:
                        path = f"disk{self.n}".encode()
                        self.n += 1
                        r = w.acquire(path, b"me", 600000)
                        check(r["code"] == "ok", f"acquire: {r}")
                        self.tokens[path] = r["token"]
                        count -= 1
            except (OSError, wire.Failure):
                pass

    def verify(self, node):
        with node.connect() as w:
            for path, token in self.tokens.items():
                equal(w.tokens(path), [token], f"{path.decode()} on node {node.id}")
