"""Which objects can be an application of a kind, and what is said of the others."""

import asyncio
import functools
import socketserver

import pytest

from preforkd.apps import signatures
from preforkd.config.target import Target


def wsgi(environ, start_response):
    """A WSGI application."""


def wsgi_generator(environ, start_response):
    """One that calls start_response when it is iterated over."""
    yield b""


async def asgi(scope, receive, send):
    """An ASGI application."""


def asgi_by_hand(scope, receive, send):
    """One that returns a coroutine of another function."""
    return asgi(scope, receive, send)


def handle(connection: object, peer: object) -> None:
    """A stream handler."""


class Framework:
    """As Flask: WSGI, and many optional arguments to make one."""

    def __init__(self, name, folder=None, options=None):
        pass

    def __call__(self, environ, start_response):
        return []


class AsyncFramework:
    """As Starlette."""

    def __init__(self, *, debug=False):
        pass

    async def __call__(self, scope, receive, send):
        pass


class Answer:
    """A class that is a WSGI application: its instances are answers."""

    def __init__(self, environ, start_response):
        pass

    def __iter__(self):
        return iter(())


class Endpoint:
    """A class that is an ASGI application, as Starlette's endpoints."""

    def __init__(self, scope, receive, send):
        pass

    def __await__(self):
        yield


class Handler(socketserver.StreamRequestHandler):
    """As people write them for socketserver."""


def decorated(function):
    """Pass any arguments on, as decorators do, with and without functools.wraps."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@decorated
def of_request(request):
    """What takes a request in place of two arguments, as werkzeug's Request.application makes of it."""


class AnyCall:
    """Calls what it was given, as an agent of a monitoring service does."""

    __slots__ = ("__call__",)

    def __init__(self, function):
        self.__call__ = function


class Made:
    """A class that makes something else when it is called."""

    def __new__(cls, environ, start_response):
        return []


def create_app():
    """A factory."""


def create_app_with(config=None):
    """A factory with an option."""


def create_app_with_two(config=None, testing=False):
    """A factory with as many options as an application has arguments."""


def create_app_with_three(config=None, testing=False, prefix=""):
    """The same for ASGI."""


async def make_app():
    """A factory that cannot be."""


class Old:
    """ASGI 2: a class for each scope."""

    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        pass


async def stream_async(connection, peer):
    """As asyncio has it."""


def stream_generator(connection, peer):
    """Nothing of it would run."""
    yield


async def asgi_generator(scope, receive, send):
    """Nothing of it would run."""
    yield


def optional_stream(connection=None, peer=None):
    """Likewise."""


def optional_wsgi(environ=None, start_response=None):
    """Odd, and an application."""


RIGHT = [
    *[("wsgi", each) for each in (wsgi, wsgi_generator, Framework("x"), Answer, of_request, Made)],
    *[("wsgi", each) for each in (decorated(wsgi), functools.partial(wsgi), print, optional_wsgi)],
    *[("wsgi", each) for each in (Framework("x").__call__, lambda *args: [], AnyCall(wsgi))],
    *[("asgi", each) for each in (asgi, asgi_by_hand, AsyncFramework(), Endpoint, decorated(asgi))],
    *[("asgi", each) for each in (functools.partial(asgi), AsyncFramework().__call__)],
    *[("asgi", each) for each in (AnyCall(asgi), lambda scope, receive, send: asgi)],
    *[("stream", each) for each in (handle, Handler, optional_stream, lambda sock, _peer: None)],
]


@pytest.mark.parametrize(("kind", "application"), RIGHT)
def test_what_can_be_called_is_taken(kind, application):
    """Functions, instances, classes, partials, decorated ones, and what hides its arguments."""
    assert signatures.fault(application, Target("shop", "app", kind=kind)) is None


WRONG = [
    ("wsgi", asgi, "asynchronous", "asgi:shop:app"),
    ("wsgi", AsyncFramework(), "asynchronous", "asgi:shop:app"),
    ("wsgi", stream_async, "asynchronous", "def instead of async def"),
    ("wsgi", functools.partial(asgi), "asynchronous", "asgi:shop:app"),
    (
        "wsgi",
        asgi_by_hand,
        "it takes (scope, receive, send), but kind wsgi passes",
        "asgi:shop:app",
    ),
    ("wsgi", create_app, "it takes ()", "wsgi:shop:app()"),
    ("wsgi", create_app_with, "it takes (config=None)", "wsgi:shop:app()"),
    ("wsgi", create_app_with_two, "it is a factory", "wsgi:shop:app()"),
    ("wsgi", Framework, "have no __iter__", "an instance of shop:app"),
    ("wsgi", AsyncFramework, "have no __iter__", "wsgi:shop:app()"),
    ("wsgi", Handler, "have no __iter__", "write stream:shop:app"),
    ("wsgi", handle.__get__(1), "it takes (peer), but", ""),
    ("wsgi", 3, "it is not callable, it is of type int", ""),
    (
        "asgi",
        wsgi,
        "it takes (environ, start_response), but kind asgi passes (scope, receive, send)",
        "wsgi:shop:app",
    ),
    ("asgi", Framework("x"), "but kind asgi passes", "wsgi:shop:app"),
    ("asgi", create_app, "it takes ()", "asgi:shop:app()"),
    ("asgi", create_app_with_three, "it is a factory", "asgi:shop:app()"),
    ("asgi", make_app, "it takes ()", "asgi:shop:app()"),
    ("asgi", AsyncFramework, "have no __await__", "asgi:shop:app()"),
    ("asgi", Framework, "have no __await__", "an instance of shop:app"),
    ("asgi", Old, "have no __await__", "an instance"),
    ("asgi", asgi_generator, "would never run", "must not yield"),
    ("stream", stream_async, "asynchronous", "def instead of async def"),
    ("stream", asgi, "asynchronous", "asgi:shop:app"),
    ("stream", stream_generator, "would never run", "must not yield"),
    ("stream", wsgi, "as a WSGI application does", "wsgi:shop:app"),
    ("stream", Framework("x"), "as a WSGI application does", "wsgi:shop:app"),
    ("stream", create_app, "it takes ()", "stream:shop:app()"),
]


@pytest.mark.parametrize(("kind", "application", "words", "hint"), WRONG)
def test_what_cannot_be_called_is_refused_with_the_right_target(kind, application, words, hint):
    """Of another kind, a factory without its call, a class in place of an instance, code that never runs."""
    what, found = signatures.fault(application, Target("shop", "app", kind=kind))
    assert words in what
    assert hint in found


def test_what_a_factory_returns_is_judged_as_its_result():
    """None, something else, and the coroutine of a factory that is asynchronous, which is closed."""
    target = Target("shop", "make", True, kind="wsgi")
    assert signatures.fault(None, target)[0].startswith("the factory has returned None")
    assert "an object of type int" in signatures.fault(3, target)[0]
    coroutine = make_app()
    assert "the factory is asynchronous" in signatures.fault(coroutine, target)[0]
    with pytest.raises(RuntimeError, match="cannot reuse"):
        asyncio.run(coroutine)
    assert signatures.fault(asgi, target)[1] == "write asgi:shop:make()"


def test_real_frameworks_are_what_they_are():
    """Each is taken as its own kind, and as no other."""
    flask = pytest.importorskip("flask").Flask("shop")
    fastapi = pytest.importorskip("fastapi").FastAPI()
    for application, kind in ((flask, "wsgi"), (fastapi, "asgi")):
        for tried in ("wsgi", "asgi", "stream"):
            found = signatures.fault(application, Target("shop", "app", kind=tried))
            assert (found is None) == (tried == kind)
            assert found is None or found[1].startswith(f"write {kind}:shop:app")
        for tried in ("wsgi", "asgi"):
            assert (
                signatures.fault(type(application), Target("shop", "app", kind=tried)) is not None
            )
