r"""Lines of key=value pairs with quoted values (raftstore/base/fields.h), read strictly.

fields(b'a=1 b="x y\x0a"') -> {"a": b"1", "b": b"x y\n"}; ValueError for anything else.
"""
import re

PAIR = re.compile(rb'([a-z][a-z0-9_]*)=(?:"((?:[^"\\]|\\["\\]|\\x[0-9a-f]{2})*)"|([^\s"=\\]+))(?: |\Z)')
ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|(.))")


def fields(line):
    found, at = {}, 0
    if any(c < 0x20 or c == 0x7f for c in line):
        raise ValueError(f"control bytes: {line!r}")
    while at < len(line):
        m = PAIR.match(line, at)
        if not m:
            raise ValueError(f"not key=value at {at}: {line!r}")
        key, quoted, plain = m.group(1).decode(), m.group(2), m.group(3)
        if key in found:
            raise ValueError(f"{key} twice: {line!r}")
        found[key] = plain if quoted is None else ESCAPE.sub(
            lambda e: bytes([int(e.group(1), 16)]) if e.group(1) else e.group(2), quoted)
        at = m.end()
    if not found:
        raise ValueError("an empty line")
    return found


def lines(data):
    """All lines of a text, each read; the last one must be whole."""
    if data and not data.endswith(b"\n"):
        raise ValueError(f"a line is cut off: {data[-80:]!r}")
    return [fields(line) for line in data.split(b"\n")[:-1]]
