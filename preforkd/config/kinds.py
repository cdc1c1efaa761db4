"""The kinds of applications: stream handlers, WSGI and ASGI, each as a record of what holds for it.

Code that behaves differently per kind (the settings, the loader, the zygote, the worker) reads the record and
does not compare names. The one exception is `preforkd.worker.main`, which chooses the server's class: this
package is below the worker and cannot import it.

To add a kind: add a record here, a server there, and a row to the table in tests/config/test_kinds.py.
"""

from msgspec import Struct


class ApplicationKind(Struct, frozen=True, kw_only=True):
    """One kind of application; the defaults are those of a plain callable that is given a connection."""

    name: str
    """As it stands in ``app.target`` and in the settings' help."""
    arguments: tuple[str, ...]
    """What the application is called with."""
    result: str = ""
    """The method that what it returns must have; empty: what it returns is not used."""
    http: bool = False
    """It is sent requests: the sections http and access_log, app.check and the probes apply."""
    event_loop: bool = False
    """It is a coroutine function, and runs in an event loop of asyncio."""
    threads: bool = False
    """Several threads may call it: workers.threads applies."""
    spools: bool = False
    """Request bodies and answers may wait in temporary files: http.spool and its relatives apply."""
    warm_up_requests: bool = False
    """app.warm_up may name paths as well as functions."""
    request_hooks: bool = False
    """The hooks request_begun and request_ended are called."""
    refork_refusal: str = ""
    """Why the next zygote cannot be forked from a worker; empty: it can."""
    modules: tuple[str, ...]
    """Imported before the fork, so that the workers share them; those that are not installed are left out."""
    handshake_modules: tuple[str, ...] = ()
    """The same where a listener's connections begin with TLS or the PROXY protocol's header."""


STREAM = ApplicationKind(
    name="stream",
    arguments=("connection", "peer"),
    modules=("preforkd.worker.stream",),
    handshake_modules=("preforkd.worker.handshakes",),
)
WSGI = ApplicationKind(
    name="wsgi",
    arguments=("environ", "start_response"),
    result="__iter__",
    http=True,
    threads=True,
    spools=True,
    warm_up_requests=True,
    request_hooks=True,
    modules=("preforkd.worker.wsgi.loop",),
)
ASGI = ApplicationKind(
    name="asgi",
    arguments=("scope", "receive", "send"),
    result="__await__",
    http=True,
    event_loop=True,
    refork_refusal="an application of kind asgi cannot be forked while its event loop runs",
    modules=(
        "preforkd.worker.asgi.server",
        "preforkd.worker.asgi.websocket",
        "uvloop",
    ),
)

KINDS = {kind.name: kind for kind in (STREAM, WSGI, ASGI)}
"""By name, in the order in which they are listed to an administrator."""

# For which kinds a setting has an effect, as `preforkd.config.settings` declares it.
ALL_KINDS = tuple(KINDS)
HTTP_KINDS = tuple(kind.name for kind in KINDS.values() if kind.http)
THREADED_KINDS = tuple(kind.name for kind in KINDS.values() if kind.threads)
EVENT_LOOP_KINDS = tuple(kind.name for kind in KINDS.values() if kind.event_loop)
SPOOLING_KINDS = tuple(kind.name for kind in KINDS.values() if kind.spools)


def kind_of(target: str) -> ApplicationKind:
    """Return the kind of an ``app.target`` that was read, KIND:MODULE:ATTRIBUTE. Raises KeyError."""
    return KINDS[target.partition(":")[0]]
