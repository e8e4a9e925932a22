#!/usr/bin/env python3
"""Make keys and tokens for test_jwt.c with other software than the product's (python3-cryptography).

usage: make_tokens.py FILE

Writes a JSON object: "jwks" (a key set), "rotated" (one without the key r1), "tokens" (a token for each
name).  Times are around 1800000000, which is the test's "now".
"""
import base64
import hashlib
import hmac
import json
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NOW = 1800000000


def b64(data):
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(n):
    return b64(n.to_bytes((n.bit_length() + 7) // 8, "big"))


class Key:
    def __init__(self, kid, alg, private):
        self.kid, self.alg, self.private = kid, alg, private

    def jwk(self):
        public = self.private.public_key()
        jwk = {"kid": self.kid, "use": "sig"}
        if self.alg.startswith(("RS", "PS")):
            n = public.public_numbers()
            return jwk | {"kty": "RSA", "alg": "RS256", "n": number(n.n), "e": number(n.e)}
        if self.alg == "ES256":
            n = public.public_numbers()
            return jwk | {"kty": "EC", "crv": "P-256", "x": b64(n.x.to_bytes(32, "big")),
                          "y": b64(n.y.to_bytes(32, "big"))}
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return jwk | {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}

    def der(self, data):
        return self.private.sign(data, ec.ECDSA(hashes.SHA256()))

    def sign(self, data):
        if self.alg == "RS256":
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        if self.alg == "RS512":
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA512())
        if self.alg == "PS256":
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            return self.private.sign(data, pss, hashes.SHA256())
        if self.alg == "ES256":
            r, s = decode_dss_signature(self.der(data))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return self.private.sign(data)

    def pem(self):
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def new_rsa(kid, alg="RS256", bits=2048):
    return Key(kid, alg, rsa.generate_private_key(65537, bits))


r1, r2, weak = new_rsa("r1"), new_rsa("r2"), new_rsa("weak", bits=1024)
e1 = Key("e1", "ES256", ec.generate_private_key(ec.SECP256R1()))
d1 = Key("d1", "EdDSA", ed25519.Ed25519PrivateKey.generate())
thief = new_rsa("r1")  # Somebody else's key under a known name.

claims = {"iss": "https://issuer.example", "aud": "holdfast", "sub": "ci", "exp": NOW + 300,
          "nbf": NOW - 5, "iat": NOW - 5, "scope": "openid locks", "client_id": "runner",
          "realm_access": {"roles": ["reader", "deployer"]}}


def change(**members):
    """The claims with some replaced; None takes one out."""
    return {k: v for k, v in (claims | members).items() if v is not None}


def raw(header, payload, key, sign=None):
    text = b64(header if isinstance(header, (str, bytes)) else json.dumps(header)) + "." + b64(payload)
    return text + "." + b64((sign or key.sign)(text.encode()))


def token(key=r1, payload=None, sign=None, **header):
    head = {"alg": key.alg, "kid": key.kid, "typ": "at+jwt"} | header
    head = {k: v for k, v in head.items() if v is not None}
    return raw(head, json.dumps(claims if payload is None else payload), key, sign)


def hs256(secret):
    return lambda data: hmac.new(secret, data, hashlib.sha256).digest()


def claim(**members):
    return token(payload=change(**members))


def payload_text(text):
    return raw({"alg": "RS256", "kid": "r1", "typ": "at+jwt"}, text, r1)


def as_alg(key, alg):
    return Key(key.kid, alg, key.private)


t = {}
t["rs256"], t["es256"], t["eddsa"] = token(), token(e1), token(d1)
t["no_kid"] = token(kid=None)
t["no_kid_unknown"] = token(new_rsa("x"), kid=None)
t["aud_array"] = claim(aud=["other", "holdfast"])
t["typ_jwt"], t["typ_none"] = token(typ="JWT"), token(typ=None)
t["typ_long"] = token(typ="application/AT+jwt")
t["typ_other"], t["typ_number"] = token(typ="logout+jwt"), token(typ=5)
t["exp_fraction"] = claim(exp=NOW + 0.5)
# Algorithms.
none = b64(json.dumps({"alg": "none"})) + "." + b64(json.dumps(claims)) + "."
t["none"] = none
for word in ("None", "NONE", "nOnE", ""):
    t["none_" + (word or "empty")] = token(alg=word, sign=lambda data: b"")
t["none_signed"] = token(alg="none")
t["hs_pem"] = token(alg="HS256", sign=hs256(r1.pem()))
t["hs_jwk"] = token(alg="HS256", sign=hs256(json.dumps(r1.jwk()).encode()))
t["hs_empty"] = token(alg="HS256", sign=hs256(b""))
t["hs_as_eddsa"] = token(d1, sign=hs256(base64.urlsafe_b64decode(d1.jwk()["x"] + "=")))
t["ps256"], t["rs512"] = token(as_alg(r1, "PS256")), token(as_alg(r1, "RS512"))
t["alg_missing"], t["alg_number"], t["alg_array"] = token(alg=None), token(alg=1), token(alg=["RS256"])
t["rs_by_ec"], t["es_by_rsa"] = token(e1, alg="RS256"), token(r1, alg="ES256")
# Keys brought along.
t["thief"] = token(thief)
t["jwk"] = token(thief, jwk=thief.jwk(), kid=None)
t["jwk_kid"] = token(r1, jwk=r1.jwk())
t["jku"] = token(thief, jku="https://evil.example/keys", kid=None)
t["x5u"] = token(r1, x5u="https://evil.example/cert")
t["x5c"] = token(r1, x5c=["MIIB"])
t["crit"], t["crit_empty"] = token(crit=["exp"], exp=NOW), token(crit=[])
t["b64"] = token(b64=False)
t["zip"] = token(zip="DEF")
t["cty"] = raw({"alg": "RS256", "kid": "r1", "cty": "JWT"}, token(), r1)
t["nested"] = raw({"alg": "RS256", "kid": "r1"}, token(), r1)
t["kid_unknown"], t["kid_number"], t["kid_path"] = token(kid="r9"), token(kid=1), token(kid="../r1")
t["rotated_out"] = token(r2)
# Signatures.
head, body, sig = token().split(".")
t["sig_none"], t["sig_short"] = f"{head}.{body}.", f"{head}.{body}.{sig[:-4]}"
t["sig_padded"] = f"{head}.{body}.{sig}=="
t["sig_long"] = f"{head}.{body}.{sig}AAAA"
t["sig_of_other"] = f"{head}.{body}.{claim(sub='other').split('.')[2]}"
t["es_zero"] = token(e1, sign=lambda data: bytes(64))
t["es_der"] = token(e1, sign=e1.der)
order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
t["es_order"] = token(e1, sign=lambda data: order.to_bytes(32, "big") * 2)
t["eddsa_zero"] = token(d1, sign=lambda data: bytes(64))
# Form.
t["empty"], t["dots"], t["one"], t["two"] = "", "..", head, f"{head}.{body}"
t["four"], t["jwe"] = f"{head}.{body}.{sig}.{sig}", f"{head}.a.b.c.{sig}"
t["space"], t["newline"] = " " + token(), token() + "\n"
t["plus"] = raw('{"alg":"RS256","kid":"r1","x":"\u00fb\u00ff"}', "{}", r1).replace("-", "+").replace("_", "/")
t["head_array"] = raw('["RS256"]', json.dumps(claims), r1)
t["head_twice"] = raw('{"alg":"none","alg":"RS256","kid":"r1"}', json.dumps(claims), r1)
t["head_tail"] = raw('{"alg":"RS256","kid":"r1"} {}', json.dumps(claims), r1)
t["head_latin1"] = raw(b'{"alg":"RS256","kid":"r1","x":"\xe4"}', json.dumps(claims), r1)
t["head_deep"] = raw('{"alg":"RS256","kid":"r1","x":' + "[" * 2800 + "]" * 2800 + "}", "{}", r1)
t["payload_twice"] = payload_text(json.dumps(claims)[:-1] + ', "sub": "root"}')
t["payload_array"], t["payload_text"] = payload_text("[]"), payload_text('"x"')
t["payload_cut"], t["payload_empty"] = payload_text(json.dumps(claims)[:-1]), payload_text("")
t["payload_nul"] = payload_text(json.dumps(change(sub="ci\0root")))
t["payload_nan"] = payload_text(json.dumps(change(exp=float("nan"))))
t["huge"] = claim(filler="x" * 6000)
t["large"] = claim(filler="x" * 4000)
# Claims.
t["exp_none"], t["exp_text"], t["exp_true"] = claim(exp=None), claim(exp=str(NOW + 9)), claim(exp=True)
t["exp_1e300"], t["exp_negative"] = claim(exp=1e300), claim(exp=-NOW)
t["exp_int64"] = claim(exp=2**63 - 1)
t["exp_now"], t["exp_last"], t["exp_over"] = claim(exp=NOW), claim(exp=NOW - 29), claim(exp=NOW - 30)
t["nbf_first"], t["nbf_over"], t["nbf_text"] = claim(nbf=NOW + 30), claim(nbf=NOW + 31), claim(nbf="1")
t["nbf_low"] = claim(nbf=-(2**53) + 1)
t["iat_first"], t["iat_over"], t["iat_text"] = claim(iat=NOW + 30), claim(iat=NOW + 31), claim(iat=[])
t["iss_none"], t["iss_other"] = claim(iss=None), claim(iss="https://issuer.example/")
t["iss_array"] = claim(iss=["https://issuer.example"])
t["aud_none"], t["aud_other"], t["aud_empty"] = claim(aud=None), claim(aud="holdfas"), claim(aud=[])
t["aud_mixed"], t["aud_object"] = claim(aud=["holdfast", 5]), claim(aud={"holdfast": 1})
t["sub_none"], t["sub_empty"], t["sub_number"] = claim(sub=None), claim(sub=""), claim(sub=7)
t["sub_255"], t["sub_256"], t["sub_line"] = claim(sub="s" * 255), claim(sub="s" * 256), claim(sub="a\nb")
t["sub_utf8"] = claim(sub="Zo\u00eb \u2603")
t["scope_none"], t["scope_other"] = claim(scope=None), claim(scope="openid lock lockss")
t["scope_array"], t["scope_spaces"] = claim(scope=["locks"]), claim(scope="  locks ")
t["scp"], t["scp_text"] = claim(scope=None, scp=["locks"]), claim(scope=None, scp="a locks")
t["scp_mixed"] = claim(scope=None, scp=["locks", 1])
# Roles.
t["roles_none"], t["roles_text"] = claim(realm_access=None), claim(realm_access={"roles": "a b"})
t["roles_number"] = claim(realm_access={"roles": 5})
t["roles_mixed"] = claim(realm_access={"roles": ["a", None]})
t["roles_url"] = claim(**{"https://x.example/roles": ["far"], "a.b": {"c/d": ["deep"]}})

keys = [r1.jwk(), r2.jwk(), e1.jwk(), d1.jwk(), weak.jwk(),
        {"kty": "oct", "kid": "o1", "k": b64(b"secret")},
        new_rsa("enc").jwk() | {"use": "enc"}]
out = {"jwks": {"keys": keys}, "tokens": t,
       "rotated": {"keys": [k for k in keys if k["kid"] not in ("r2",)]}}
with open(sys.argv[1], "w") as f:
    json.dump(out, f)
