"""The application of the soak: it writes down each request that it begins, and breaks when asked to.

What it writes is one line for each request, so that a request without an answer can be accounted for by
the process that had it. Before it takes its own process down, it has written down whose connections die with it.
"""

import asyncio
import ctypes
import os
import shlex
import sys
import time
from pathlib import Path

import held

_log = os.open(os.environ["SOAK_REQUESTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
if os.environ.get("SOAK_BREAK") == "import":
    raise RuntimeError("this version of the application is broken")


class Hooks:
    """What the file of this name says breaks: the worker before it forks a zygote, or that zygote."""

    @staticmethod
    def before_refork():
        if _to_break() == "worker":
            raise RuntimeError("this refork is broken")

    @staticmethod
    def after_fork():
        # What a hook raises harms nobody, so it takes more than that to break a zygote.
        if "PREFORKD_WORKER" not in os.environ and _to_break() == "zygote":
            os._exit(7)


def _to_break():
    flag = Path(os.environ["SOAK_REFORK"])
    return flag.read_text() if flag.exists() else ""


def _write(*words):
    os.write(_log, (" ".join(map(str, words)) + "\n").encode())


def _last_words(how):
    # Nobody may take another connection after these words: another thread of the worker takes over while the
    # application is busy. It cannot while this one keeps the interpreter's lock, as PyDLL and system(3)
    # do; it asks for it after the switch interval only, and has done so once the pause is over.
    sys.setswitchinterval(1000.0)
    time.sleep(0.05)
    words = [sys.executable, held.__file__, str(os.getpid()), how]
    command = f"{shlex.join(words)} >> {shlex.quote(os.environ['SOAK_REQUESTS'])}"
    ctypes.PyDLL(None).system(command.encode())


def _fault(how):
    if how == "raise":
        raise RuntimeError("the request cannot be answered")
    if how == "hang":
        _write("HANGS", os.getpid())
        time.sleep(600)
    _last_words(how)
    if how == "exit":
        os._exit(9)
    ctypes.string_at(8)


def application(environ, start_response):
    """``/?id=N`` is answered at once, ``/slow?id=N`` in 0.3 s, ``/HOW?id=N`` is a fault."""
    number = environ["QUERY_STRING"].partition("id=")[2]
    _write("BEGUN", number, os.getpid(), environ["REMOTE_PORT"])
    path = environ["PATH_INFO"].strip("/")
    if path == "slow":
        time.sleep(0.3)
    elif path:
        _fault(path)
    length = 0
    while data := environ["wsgi.input"].read(65536):
        length += len(data)
    body = f"id={number} pid={os.getpid()} length={length}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    """Do as `application` does."""
    if scope["type"] == "lifespan":
        while (event := (await receive())["type"]) != "lifespan.shutdown":
            await send({"type": event + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    number = scope["query_string"].decode().partition("id=")[2]
    _write("BEGUN", number, os.getpid(), scope["client"][1])
    path = scope["path"].strip("/")
    if path == "slow":
        await asyncio.sleep(0.3)
    elif path:
        _fault(path)
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = f"id={number} pid={os.getpid()} length={length}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
