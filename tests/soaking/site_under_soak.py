"""The application of the soak: it writes down each request that it begins, and breaks when asked to.

What it writes is one line for each request, so that a request without an answer can be accounted for by
the process that had it. Before it takes its own process down, it writes down whose connections die with it.
"""

import ctypes
import os
import time
from pathlib import Path

from held import held_ports

_log = os.open(os.environ["SOAK_REQUESTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
if os.environ.get("SOAK_BREAK") == "import":
    raise RuntimeError("this version of the application is broken")


class Hooks:
    """What the file of this name says breaks: the worker before it forks a zygote, or that zygote."""

    @staticmethod
    def before_refork():
        Hooks._break("worker")

    @staticmethod
    def after_fork():
        if "PREFORKD_WORKER" not in os.environ:
            Hooks._break("zygote")

    @staticmethod
    def _break(who):
        flag = Path(os.environ["SOAK_REFORK"])
        if flag.exists() and flag.read_text() == who:
            raise RuntimeError("this refork is broken")


def _write(*words):
    os.write(_log, (" ".join(map(str, words)) + "\n").encode())


def _last_words(how):
    _write("DIES", os.getpid(), how, *held_ports(os.getpid()))


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
