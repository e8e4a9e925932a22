"""A relay that is a bad network: it passes bytes on in tiny pieces, or flips bits in them.

`mode` may change at any time: None (as it came), "pieces" (one to three bytes a write), "flip" (now
and then a bit is wrong).
"""
import random
import selectors
import socket
import threading


class Torture:
    def __init__(self, mode=None, seed=1):
        self.mode = mode
        self.flip_one_in = 200  # Reads.
        self.n_flips = 0
        self.random = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.wake_read, self.wake_write = socket.socketpair()
        self.selector.register(self.wake_read, selectors.EVENT_READ,
                               lambda: self.wake_read.recv(64))
        self.stopped = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def listen(self, port, target):
        s = socket.create_server(("127.0.0.1", port), backlog=200)
        self.selector.register(s, selectors.EVENT_READ, lambda: self.accept(s, target))
        self.wake_write.send(b"x")

    def accept(self, server, target):
        client, _ = server.accept()
        try:
            node = socket.create_connection(("127.0.0.1", target), 1)
        except OSError:
            client.close()
            return
        for a, b in ((client, node), (node, client)):
            a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            a.settimeout(5)
            self.selector.register(a, selectors.EVENT_READ, lambda a=a, b=b: self.move(a, b))

    def send(self, to, data):
        if self.mode == "flip" and self.random.randrange(self.flip_one_in) == 0:
            at = self.random.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1 << self.random.randrange(8)]) + data[at + 1:]
            self.n_flips += 1
        if self.mode != "pieces":
            to.sendall(data)
            return
        at = 0
        while at < len(data):
            # Long ones (images) would take for ever one by one: their ends are what matters.
            n = self.random.randrange(1, 4) if at < 400 or len(data) - at < 100 else 5000
            to.sendall(data[at:at + n])
            at += n

    def move(self, source, to):
        try:
            data = source.recv(65536)
            if data:
                self.send(to, data)
                return
        except OSError:
            pass
        for s in (source, to):
            try:
                self.selector.unregister(s)
            except (KeyError, ValueError):
                pass
            s.close()

    def run(self):
        while not self.stopped:
            for key, _ in self.selector.select():
                if key.fileobj.fileno() >= 0:
                    key.data()

    def stop(self):
        self.stopped = True
        self.wake_write.send(b"x")
        self.thread.join(10)
