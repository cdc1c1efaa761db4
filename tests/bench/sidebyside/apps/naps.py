"""An application that takes 100 ms for /nap, and says who has answered and when it began."""

import os
import time


def wsgi(environ, start_response):
    """Answer with the pid and the time (monotonic seconds) at which the request was begun."""
    begun = time.monotonic()
    if environ["PATH_INFO"] == "/nap":
        time.sleep(0.1)
    text = b"%d %.6f" % (os.getpid(), begun)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]
