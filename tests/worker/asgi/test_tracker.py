"""The running requests in the slot, and the stacks of tasks."""

import asyncio
import os
import types
from types import SimpleNamespace

from preforkd.http.head import RequestHead
from preforkd.ipc import slots
from preforkd.worker.asgi.tracker import RequestTracker, describe_loop, describe_tasks, described
from preforkd.worker.listener_context import CachedHead


def cached(target):
    head = RequestHead("GET", target, "1.1", (), True, 0, False)
    return CachedHead(b"GET %b HTTP/1.1\r\n\r\n" % target, head, {}, None, "")


class Running:
    def __init__(self, target):
        self.cached = cached(target)


def test_the_slot_shows_the_oldest_request():
    """It is idle when none runs; each end is counted, WebSockets as well."""
    memory = slots.create("test")
    reader, writer = slots.SlotReader(os.dup(memory)), slots.SlotWriter(memory, lambda: None)
    os.close(memory)
    tracker = RequestTracker(writer)
    first, second, third = Running(b"/first"), Running(b"/second"), Running(b"/third")
    begun = tracker.begin(first)
    tracker.begin(second)
    tracker.begin(third)
    assert reader.request_line() == "GET /first HTTP/1.1"
    assert reader.busy_since_ns() == begun
    names = [described(one) for one in tracker.running()]
    assert names == ["GET '/first'", "GET '/second'", "GET '/third'"]
    tracker.end(first)
    assert reader.request_line() == "GET /second HTTP/1.1"
    tracker.count()
    assert reader.busy_since_ns() > begun
    tracker.end(third)
    assert reader.request_line() == "GET /second HTTP/1.1"
    tracker.end(second)
    assert (reader.busy_since_ns(), reader.read(1e18).requests) == (0, 4)
    reader.close()
    writer.close()


def test_tasks_are_described_by_what_they_await():
    """The chain of awaited calls, the innermost first; a waiting task has no other stack."""

    async def inner():
        await asyncio.Event().wait()

    async def outer():
        await inner()

    async def look():
        task = asyncio.create_task(outer(), name="looked-at")
        await asyncio.sleep(0)
        tracker = RequestTracker(
            SimpleNamespace(set_request_line=lambda _: 0, set_busy=lambda _: 0)
        )
        tracker.begin(Running(b"/x"))
        lines = list(describe_loop(asyncio.get_running_loop(), tracker))
        task.cancel()
        return lines

    lines = asyncio.run(look())
    assert lines[0] == "Request GET '/x'\n"
    at = next(i for i, line in enumerate(lines) if line.startswith("Task looked-at "))
    chain = "".join(lines[at + 1 : at + 4])
    assert chain.index(" in wait") < chain.index(" in inner") < chain.index(" in outer")


@types.coroutine
def in_a_generator():
    yield from asyncio.Event().wait()


def test_a_task_is_described_with_the_lines_at_which_it_waits():
    """Also within a coroutine that is a generator."""

    async def outer():
        """Wait in the second line."""
        await in_a_generator()

    async def look():
        task = asyncio.create_task(outer(), name="looked-at")
        await asyncio.sleep(0)
        lines = list(describe_tasks([task]))
        task.cancel()
        return lines

    *_, inner, last = asyncio.run(look())
    line = outer.__code__.co_firstlineno + 2
    assert last == f'  File "{__file__}", line {line} in outer\n'
    line = in_a_generator.__code__.co_firstlineno + 2
    assert inner == f'  File "{__file__}", line {line} in in_a_generator\n'
