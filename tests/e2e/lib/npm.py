"""Packages of npm that a test needs, from whatever registry npm is configured to use: just those that a
package-lock.json names, with every package's checksum, and without running any package's scripts."""
import fcntl
import os
import shutil
import subprocess

from cluster import Failed, Skip

E2E = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def install(test, name):
    """The folder tests/e2e/NAME with its node_modules, below the build directory, where it stays.  Returns
    its path."""
    if not shutil.which("npm"):
        raise Skip("npm is needed")
    source, directory = os.path.join(E2E, name), os.path.join(test.build, "tests", "e2e", name)
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    with open(directory + ".lock", "w") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        done = os.path.join(directory, "installed")
        with open(os.path.join(source, "package-lock.json"), "rb") as f:
            wanted = f.read()
        if not os.path.exists(done) or open(done, "rb").read() != wanted:
            shutil.rmtree(directory, ignore_errors=True)
            shutil.copytree(source, directory)
            npm = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=directory,
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False)
            if npm.returncode != 0:
                raise Failed(f"npm ci: {npm.stdout[-500:]}{npm.stderr[-1500:]}")
            with open(done, "wb") as f:
                f.write(wanted)
        shutil.copytree(source, directory, dirs_exist_ok=True)  # Our own files as they are now.
    return directory
