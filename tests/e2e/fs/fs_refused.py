"""What is not there yet is refused, and never local to this host."""
import ctypes
import fcntl
import os
import struct

from mountlib import acquire, fails, take

OPTIONS = ""


def test_flock(m):
    p = m.path("flock")
    for fd in (acquire(p), os.open(m.path("flock-free"), os.O_CREAT | os.O_RDWR)):
        for op in (fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN):
            with fails("ENOLCK"):
                fcntl.flock(fd, op)
        os.close(fd)
    os.unlink(p)


def test_fcntl(m):
    p = m.path("fcntl")
    fd = acquire(p)
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    for command in (fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK, fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW,
                    fcntl.F_OFD_GETLK):
        with fails("ENOLCK"):
            fcntl.fcntl(fd, command, lock)
    with fails("ENOLCK"):
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)  # POSIX locks are dropped at close: must not hang, nor fail.
    os.unlink(p)


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
