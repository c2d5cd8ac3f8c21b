"""A forward proxy for the tests, as companies and universities have one."""
import select
import socket
import socketserver
import threading


class Proxy(socketserver.ThreadingTCPServer):
    """A forward proxy that leads every host to one server; `asked` holds what it was asked for."""

    daemon_threads, block_on_close, allow_reuse_address = True, False, True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), Relay)
        self.target, self.asked = target, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """Print nothing: clients hang up."""


class Relay(socketserver.BaseRequestHandler):
    """Passes one connection on."""

    def handle(self):
        head = self.request.recv(65536)
        method, address, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.server.asked.append((method, address))
        with socket.create_connection(self.server.target) as target:
            if method == "CONNECT":
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:  # what a server expects: the path alone
                path = "/" + address.split("//", 1)[1].partition("/")[2]
                head = head.replace(address.encode(), path.encode(), 1)
                target.sendall(head.replace(b"keep-alive", b"close"))
            pipes, close = {self.request: target, target: self.request}, method != "CONNECT"
            while pipes:
                for source in select.select(list(pipes), [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if close:  # every request gets a connection of its own, and is noted
                        data = data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
                        close = False
                    pipes[source].sendall(data)
