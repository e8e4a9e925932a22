"""Hosts: network name spaces made by linear_network, which can do anything to the packets between them."""
import contextlib
import ctypes
import os
import subprocess

from cluster import Failed, Skip

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


class Host:
    """A place to run programs at, with the address 10.99.0.NUMBER."""

    def __init__(self, network, number, name, path):
        self.network = network
        self.number = number
        self.name = name
        self.path = path
        self.address = f"10.99.0.{number}"

    def argv(self, argv):
        """The command that runs another one there (nsenter becomes it: the process id is its)."""
        return ["nsenter", "--net=" + self.path, "--", *argv]

    @contextlib.contextmanager
    def inside(self):
        """Sockets that this thread makes meanwhile are the host's."""
        with open("/proc/thread-self/ns/net") as home, open(self.path) as there:
            self.enter(there)
            try:
                yield
            finally:
                self.enter(home)

    @staticmethod
    def enter(f):
        if libc.setns(f.fileno(), CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "setns")


class Network:
    def __init__(self, test, names, seed):
        tun = os.path.join(test.directory, "tun")
        if not os.path.exists("/dev/net/tun"):
            os.mknod(tun, 0o600 | 0o020000, os.makedev(10, 200))
        else:
            tun = "/dev/net/tun"
        self.process = subprocess.Popen(  # Ends with its standard input, at the latest with us.
            [test.program("linear_network"), str(len(names)), str(seed), tun],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.hosts = {}
        while True:
            words = self.process.stdout.readline().split()
            if words == ["ready"]:
                break
            if not words:
                if self.process.wait(10) == 77:
                    raise Skip("needs TUN devices and network name spaces")
                raise Failed("linear_network could not be started (see its words above)")
            number = int(words[1])
            self.hosts[names[number - 1]] = Host(
                self, number, names[number - 1], f"/proc/{self.process.pid}/fd/{words[2]}")

    def command(self, text):
        self.process.stdin.write(text + "\n")
        answer = self.process.stdout.readline().strip()
        if not answer.startswith("ok"):
            raise Failed(f"linear_network: {text}: {answer}")
        return answer[3:]

    def link(self, a, b, **what):
        """What happens to packets from a to b (Hosts, or None: all)."""
        ends = [str(h.number) if h else "*" for h in (a, b)]
        self.command(f"link {ends[0]} {ends[1]} " + " ".join(f"{k}={v}" for k, v in what.items()))

    def mtu(self, host, size):
        self.command(f"mtu {host.number} {size}")

    def counts(self):
        return dict(p.split("=") for p in self.command("count").split())

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
