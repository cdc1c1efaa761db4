"""Who waits for a reload."""

import asyncio

from preforkd.core.model import Blame, Failure
from preforkd.errors import ApplicationError, ConfigurationError, InternalError, SystemFailure
from preforkd.supervisor import reloads


def test_requests_are_merged_and_answered_together():
    """Those who ask before it begins share it; those who ask during it share the next."""

    async def scenario():
        loop = asyncio.get_running_loop()
        book = reloads.Reloads()
        first, second, third = (loop.create_future() for _ in range(3))
        book.ask(first, fresh=False)
        book.ask(second, fresh=True)
        assert book.begin()
        assert not book.asked
        book.ask(third, fresh=False)
        book.answer(reloads.success(2, "done", ("workers",)))
        assert first.result() is second.result()
        assert first.result().live == ["workers"]
        assert not third.done()
        assert book.asked
        assert not book.begin()
        third.cancel()  # he hung up
        book.answer(reloads.refusal(Failure(Blame.SYSTEM, "no", "d", "h")))
        assert (book.last.ok, book.last.blame) == (False, "system")

    asyncio.run(scenario())


def test_a_stop_refuses_everybody():
    """Who waits for the running one and who waits for the next."""

    async def scenario():
        loop = asyncio.get_running_loop()
        book = reloads.Reloads()
        first, second = loop.create_future(), loop.create_future()
        book.ask(first, fresh=False)
        book.begin()
        book.ask(second, fresh=False)
        book.refuse()
        assert first.result().blame == second.result().blame == "stopping"

    asyncio.run(scenario())


def test_errors_keep_their_blame():
    """Each class of error has its own."""
    blames = {
        ConfigurationError([]): Blame.CONFIGURATION,
        ApplicationError("x"): Blame.APPLICATION,
        SystemFailure("x"): Blame.SYSTEM,
        InternalError("x"): Blame.INTERNAL,
    }
    for error, blame in blames.items():
        assert reloads.failure_from(error).blame is blame
