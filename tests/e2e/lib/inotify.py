"""inotify(7) by ctypes."""
import ctypes
import os
import select
import struct
import time

MODIFY, ATTRIB, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IGNORED, ISDIR, OVERFLOW = 0x8000, 0x40000000, 0x4000
DONT_FOLLOW = 0x02000000  # For watch().
NAMES = {v: k for k, v in list(globals().items()) if k.isupper() and isinstance(v, int)}

libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    def __init__(self):
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self.events = []  # (watch, mask without ISDIR, name, CLOCK_MONOTONIC ns when it was read)

    def watch(self, path, mask):
        wd = libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        if wd < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", path)
        return wd

    def read(self, seconds=0.0):
        """Take what has come, or comes within this time."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        data = os.read(self.fd, 65536)
        now = time.monotonic_ns()
        while data:
            wd, mask, _, size = struct.unpack_from("iIII", data)
            name = data[16:16 + size].rstrip(b"\0").decode()
            self.events.append((wd, mask & ~ISDIR, name, now))
            data = data[16 + size:]
        return True

    def wait(self, mask, name=None, wd=None, seconds=15):
        """The first event that fits, which is taken out; fails when none comes."""
        end = time.monotonic() + seconds
        while True:
            for e in self.events:
                if e[1] & mask and name in (None, e[2]) and wd in (None, e[0]):
                    self.events.remove(e)
                    return e
            left = end - time.monotonic()
            if left <= 0 or not self.read(left):
                raise AssertionError("no inotify event %s %s within %g s; there are %s" % (
                    NAMES.get(mask, hex(mask)), name or "", seconds, self.text()))

    def quiet(self, seconds):
        """Nothing more comes for so long."""
        self.read(0)
        while self.read(seconds):
            pass

    def text(self):
        return ["%s %s" % (NAMES.get(e[1], hex(e[1])), e[2]) for e in self.events]

    def close(self):
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
