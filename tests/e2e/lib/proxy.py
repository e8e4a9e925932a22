"""A relay between clients and nodes that can cut one client off.

Each node advertises its relay's address and listens at another one.  A connection belongs to the
host that its first frame names (the mount's host= option); cutting a host stops all bytes of its
connections, both ways, without closing them, as a broken network does.
"""
import selectors
import socket
import threading


class Link:
    def __init__(self, client, node):
        self.client = client
        self.node = node
        self.host = None  # Known after the first bytes.


class Relay:
    def __init__(self, hosts):
        self.hosts = [h.encode() for h in hosts]
        self.cut_hosts = set()
        self.selector = selectors.DefaultSelector()
        self.mutex = threading.Lock()
        self.held = []  # Links that are cut.
        self.wake_read, self.wake_write = socket.socketpair()
        self.selector.register(self.wake_read, selectors.EVENT_READ, self.woken)
        threading.Thread(target=self.run, daemon=True).start()

    def listen(self, port, target):
        s = socket.create_server(("127.0.0.1", port))
        self.selector.register(s, selectors.EVENT_READ, lambda: self.accept(s, target))
        self.wake_write.send(b"x")

    def accept(self, server, target):
        client, _ = server.accept()
        try:
            node = socket.create_connection(("127.0.0.1", target), 1)
        except OSError:
            client.close()
            return
        link = Link(client, node)
        for s in (client, node):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.watch(link, s)

    def watch(self, link, s):
        self.selector.register(s, selectors.EVENT_READ, lambda: self.move(link, s))

    def move(self, link, source):
        with self.mutex:
            if link.host in self.cut_hosts:
                self.selector.unregister(source)
                self.held.append((link, source))
                return
        try:
            data = source.recv(65536)
            if data and link.host is None and source is link.client:
                found = [h for h in self.hosts if h in data]
                link.host = found[0] if found else b""
                with self.mutex:
                    if link.host in self.cut_hosts:
                        data = b""  # It would not have come through: the connection is lost.
            if data:
                (link.node if source is link.client else link.client).sendall(data)
                return
        except OSError:
            pass
        for s in (link.client, link.node):
            try:
                self.selector.unregister(s)
            except (KeyError, ValueError):
                pass
            s.close()

    def woken(self):
        self.wake_read.recv(64)
        with self.mutex:
            held, self.held = self.held, []
        for link, s in held:
            if s.fileno() >= 0:
                self.watch(link, s)

    def run(self):
        while True:
            for key, _ in self.selector.select():
                key.data()

    def cut(self, host):
        with self.mutex:
            self.cut_hosts.add(host.encode())

    def heal(self, host):
        with self.mutex:
            self.cut_hosts.discard(host.encode())
        self.wake_write.send(b"x")
