"""A client of the control socket that asks without end, as fast as it can, and wants no answer.

    python flood.py SOCKET METHOD

It prints an empty line when it has begun.
"""

import socket
import sys

path, method = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(path)
    request = b'{"method":"%b","oneway":true}\0' % method.encode()
    sock.sendall(request)
    print(flush=True)
    while True:
        sock.sendall(request * 100)
