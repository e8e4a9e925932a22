"""Random sequences of locks by several processes: the mount does what a local file system does.

At length, in any two directories: BUILDDIR/tests/e2e/flock_diff LOCAL MOUNT SEED COUNT."""
import os
import random
import shutil
import subprocess
import tempfile

from mountlib import BUILD, SLOW

OPTIONS = "timeout=20s"


def test_differential(m):
    local = tempfile.mkdtemp(prefix="holdfast-diff-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        for seed, count in ((1, 100 if SLOW else 200), (random.randrange(10**9, 10**15), 100 if SLOW else 200)):
            done = subprocess.run([os.path.join(BUILD, "tests/e2e/flock_diff"), local, m.dir, str(seed), str(count)],
                                  check=False, capture_output=True, text=True, timeout=100)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        assert os.listdir(m.dir) == []
    finally:
        shutil.rmtree(local)
