"""A preforking greeter in plain Python: PORT WORKERS."""

import os
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        line = f"Hello from Python (pid {os.getpid()})\r\n".encode()
        while True:
            connection, _ = listener.accept()
            connection.sendall(line)
            connection.close()
for _ in range(int(sys.argv[2])):
    os.wait()
