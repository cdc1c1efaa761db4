"""An application that does next to nothing: what a server itself takes."""

import os

from pause import collect, pause

BODY = b"Hello, world!\n"


def application(environ, start_response):
    if environ["PATH_INFO"] == "/gc":
        collect()
    else:
        pause()
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/plain"),
            ("Content-Length", str(len(BODY))),
            ("X-Pid", str(os.getpid())),
        ],
    )
    return [BODY]
