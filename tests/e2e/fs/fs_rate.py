"""-o rate=: each user has a bucket for requests for locks; what keeps or gives back is not limited."""
import fcntl
import os

from mountlib import NOBODY, acquire, fails, in_child, say, show, take

OPTIONS = "rate=1/h:7,allow_other"


def test_rate(m):
    os.chmod(m.dir, 0o1777)
    paths = [m.path("rate%d" % i) for i in range(4)]
    for p in paths[:2]:
        take(p)
    os.mkdir(m.path("rated"))
    with fails("EEXIST"):  # So says the kernel, which asks for nothing then.
        take(paths[0])
    fd = os.open(m.path("rated", "lock"), os.O_CREAT | os.O_RDWR)  # Asks for nothing yet.
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_UN)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with fails("EPERM"):  # .holdfast is behind the limit, and stays what it is.
        os.mkdir(m.path(".holdfast", "x"))
    with open(m.path(".holdfast", "status")) as f, fails("ENOLCK"):
        fcntl.flock(f, fcntl.LOCK_EX)
    # That were seven.
    fcntl.lockf(fd, fcntl.LOCK_UN)
    with fails("EBUSY"):
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with fails("EBUSY"):
        fcntl.flock(fd, fcntl.LOCK_SH)
    with fails("EAGAIN"):
        acquire(paths[2])
    with fails("EAGAIN"):
        os.mkdir(m.path("rated2"))
    with fails("EAGAIN"):
        os.symlink("text", m.path("rated3"))
    with fails("ENOENT"):
        os.stat(paths[2])
    os.close(fd)
    # What is held can be kept and given back.
    for _ in range(20):
        say(paths[0], "renew")
        os.utime(paths[1])
    assert int(show(paths[0])["remaining_ms"]) > 0
    # Another user has another bucket.
    def other():
        for _ in range(5):
            fd2 = acquire(paths[3])
            os.unlink(paths[3])
            os.close(fd2)
    in_child(other, uid=NOBODY)
    with fails("EAGAIN"):
        acquire(paths[2])
    for p in paths[:2]:
        os.unlink(p)
        with fails("ENOENT"):
            os.stat(p)
    os.rmdir(m.path("rated"))
