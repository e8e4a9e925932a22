"""A real authorization server for the tests: oidc-provider of npm."""
import base64
import json
import os
import urllib.parse
import urllib.request

import npm
from cluster import Failed, Process, wait_for


def client(name, roles=(), alg="ES256", ttl_s=3600):
    return {"id": name, "secret": name + "-secret", "roles": list(roles), "alg": alg, "ttl_s": ttl_s}


class Issuer:
    def __init__(self, test, clients):
        self.test = test
        self.port = test.free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = npm.install(test, "oidc")
        self.config = os.path.join(test.directory, "issuer.json")
        with open(self.config, "w") as f:
            json.dump({"port": self.port, "clients": clients}, f)

    def start(self):
        self.process = Process(self.test, "issuer", ["node", os.path.join(self.directory, "server.mjs"),
                                                     self.config])

        def serves():
            if not self.process.alive():
                raise Failed(f"the issuer ended: {self.process.last_text()[-800:]}")
            return "serving " in self.process.last_text()
        wait_for("the authorization server", 40, serves)
        return self

    def token(self, name, scope="locks", resource=None):
        """An access token by the client-credentials flow (RFC 6749, 4.4)."""
        form = {"grant_type": "client_credentials", "scope": scope}
        if resource:
            form["resource"] = resource
        secret = base64.b64encode(f"{name}:{name}-secret".encode()).decode()
        answer = self.post("/token", urllib.parse.urlencode(form).encode(),
                           {"Authorization": "Basic " + secret})
        return json.loads(answer)["access_token"]

    def rotate(self, drop=False):
        """Sign with new keys from now on; drop: publish the old ones no longer."""
        self.post("/test/rotate" + ("?drop=1" if drop else ""), b"", {})

    def post(self, path, body, headers):
        request = urllib.request.Request(self.url + path, body, headers, method="POST")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as r:
            return r.read()

    def keys(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + "/jwks", timeout=20) as r:
            return json.load(r)["keys"]
