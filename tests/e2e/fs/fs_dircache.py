"""What the mount remembers of directories for `dircache=`."""
import os
import time

from fs_timeouts import Stopped
from mountlib import acquire, fails, in_child

OPTIONS = "dircache=1h"


def test_own_changes_show_at_once(m):
    d = m.path("own")
    os.mkdir(d, 0o755)
    for change in (lambda: os.close(acquire(d + "/a")), lambda: os.unlink(d + "/a"),
                   lambda: os.mkdir(d + "/sub"), lambda: os.rmdir(d + "/sub")):
        before = os.stat(d).st_mtime_ns
        time.sleep(0.02)
        change()
        assert os.stat(d).st_mtime_ns > before, "the directory's mtime stands still"
    for mode in (0o700, 0o1777, 0o755) * 5:
        os.chmod(d, mode)
        assert os.stat(d).st_mode & 0o7777 == mode
    os.chmod(d, 0o700)

    def try_it():
        with fails("EACCES"):
            acquire(d + "/b")

    in_child(try_it, uid=65534)
    os.chmod(d, 0o777)
    in_child(lambda: os.unlink(d + "/b") if os.close(acquire(d + "/b")) is None else None, uid=65534)
    os.rmdir(d)


def test_not_asked_again(_m):
    """An own create makes the kernel forget the directory's attributes; the daemon has not."""
    for dircache, asks in (("1h", False), ("0", True)):
        with Stopped("timeout=1s,dircache=" + dircache) as s:
            d = s.mount.path("d")
            os.mkdir(d)
            directory = os.open(d, os.O_DIRECTORY)
            os.stat(d)
            os.close(acquire(d + "/a"))
            s.stop()
            if asks:
                with fails("ETIMEDOUT"):
                    os.fstat(directory)
            else:
                os.fstat(directory)
            os.close(directory)
