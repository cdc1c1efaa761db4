"""The lifespan: startup, shutdown, state, and applications without it."""

import asyncio

import pytest

from preforkd.errors import ApplicationError
from preforkd.worker.asgi.lifespan import Lifespan


def run(application):
    """Return the state after startup and shutdown."""

    async def both():
        lifespan = Lifespan(application)
        await lifespan.startup()
        await lifespan.shutdown()
        return lifespan.state

    return asyncio.run(asyncio.wait_for(both(), 20))


def test_startup_state_and_shutdown():
    """The application gets one scope of type lifespan, and both events."""
    events = []

    async def application(scope, receive, send):
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        scope["state"]["x"] = 1
        for what in ("startup", "shutdown"):
            events.append((scope["type"], (await receive())["type"]))
            await send({"type": f"lifespan.{what}.complete"})

    assert run(application) == {"x": 1}
    assert events == [("lifespan", "lifespan.startup"), ("lifespan", "lifespan.shutdown")]


async def raises(scope, receive, send):
    assert scope["type"] == "http"


async def answers_by_http(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def returns(scope, receive, send):
    pass


@pytest.mark.parametrize("application", [raises, answers_by_http, returns])
def test_an_application_without_lifespan_is_served(application, caplog):
    """It raises, sends something else, or returns: no startup, no shutdown, nothing logged."""
    assert run(application) == {}
    assert not caplog.records


def test_a_startup_that_fails_is_the_applications_fault(caplog):
    """Its message is logged."""

    async def fails(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback: no database"})

    with pytest.raises(ApplicationError, match="lifespan startup failed") as raised:
        run(fails)
    assert "traceback is in the log" in raised.value.hint
    assert "no database" in caplog.text


def test_the_first_answer_to_an_event_counts():
    """A second one is ignored."""

    async def application(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.startup.failed"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        scope["state"]["end"] = True

    assert run(application) == {"end": True}


@pytest.mark.parametrize("how", ["raise", "failed", "return"])
def test_a_shutdown_that_fails_is_logged(how, caplog):
    """An exception and the answer shutdown.failed; an application that has just ended is none."""

    async def application(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if how == "raise":
            raise KeyError("lost")
        if how == "failed":
            await send({"type": "lifespan.shutdown.failed", "message": "lost"})

    run(application)
    assert ("lifespan shutdown failed" in caplog.text) == (how != "return")
    assert ("lost" in caplog.text) == (how != "return")
