"""Says who has answered."""

import os

from pause import pause


def told(get_response):
    """Middleware: who has answered, and not before its time."""

    def middleware(request):
        response = get_response(request)
        if request.path != "/gc":
            pause()
        response["X-Pid"] = str(os.getpid())
        return response

    return middleware
