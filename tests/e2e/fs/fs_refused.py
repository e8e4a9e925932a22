"""What is not there yet is refused, and never local to this host."""
import ctypes
import os

from mountlib import acquire, fails, take

OPTIONS = ""


def test_names(m):
    p = m.path("names")
    take(p)
    with fails("EPERM"):
        os.symlink("text", m.path("names2"))
    with fails("EPERM"):
        os.link(p, m.path("names2"))
    with fails("EPERM"):
        os.rename(p, m.path("names2"))
    with fails("EPERM"):
        os.mkfifo(m.path("names2"))
    with fails("ENOENT"):
        os.stat(m.path("names2"))
    os.unlink(p)


def test_mmap(m):
    p = m.path("mmap")
    fd = acquire(p)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    assert libc.mmap(None, 4096, 3, 1, fd, 0) == ctypes.c_void_p(-1).value  # Shared: there is no content.
    os.close(fd)
    os.unlink(p)
