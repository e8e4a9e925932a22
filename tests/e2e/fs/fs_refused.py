"""What will never be there is refused, and never local to this host."""
import ctypes
import os
import socket

from mountlib import acquire, fails

OPTIONS = ""


def test_names(m):
    with fails("EPERM"):
        os.mkfifo(m.path("names"))
    with fails("EPERM", "EADDRINUSE"), socket.socket(socket.AF_UNIX) as s:
        s.bind(m.path("names"))
    with fails("ENOENT"):
        os.stat(m.path("names"))


def test_mmap(m):
    p = m.path("mmap")
    fd = acquire(p)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    assert libc.mmap(None, 4096, 3, 1, fd, 0) == ctypes.c_void_p(-1).value  # Shared: there is no content.
    os.close(fd)
    os.unlink(p)
