"""A greeter by the standard library's socketserver, preforked: PORT WORKERS."""

import os
import socketserver
import sys


class Greet(socketserver.BaseRequestHandler):
    """Says which process answers."""

    def handle(self):
        """Send one line."""
        self.request.sendall(f"Hello from socketserver (pid {os.getpid()})\r\n".encode())


class Server(socketserver.TCPServer):
    """Listens as the others do."""

    allow_reuse_address = True
    request_queue_size = 1024


server = Server(("127.0.0.1", int(sys.argv[1])), Greet)
server.socket.setblocking(False)
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        server.serve_forever()
for _ in range(int(sys.argv[2])):
    os.wait()
