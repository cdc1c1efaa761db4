"""The program that the master executes as a zygote, in the application's interpreter.

A process changes its role here: a child that the zygote forked runs as a worker, and a child that a warm worker
forked runs as the next zygote. The packages of the zygote and the worker do not import each other.
"""

import os
import socket

import msgspec

from preforkd.ipc import messages
from preforkd.ipc.channel import CHANNEL_DESCRIPTOR, STACKS_DESCRIPTOR, Channel
from preforkd.linux import process, stacks
from preforkd.worker import main as worker
from preforkd.zygote import zygote

_to_zygote: "msgspec.msgpack.Decoder[messages.ToZygote]" = msgspec.msgpack.Decoder(
    messages.ToZygote
)


def main() -> None:
    """Run as a zygote, as a worker in each child that it forks, and so on."""
    memory = STACKS_DESCRIPTOR
    stacks.write_on_signal(memory)
    for descriptor in (CHANNEL_DESCRIPTOR, memory):
        os.set_inheritable(descriptor, False)
    channel = _channel(CHANNEL_DESCRIPTOR)
    start = zygote.from_scratch(channel, worker.preload, _work)
    while start is not None:
        # Before the previous memory is closed: without a handler the signal would end the process.
        stacks.write_on_signal(start.memory)
        os.close(memory)
        # Returns only in a process that this worker has forked to be the next zygote.
        descriptor, memory = worker.run(_worker_context(start))
        stacks.write_on_signal(memory)
        channel = _channel(descriptor)
        start = zygote.from_worker(channel, start.loaded)
    process.exit_process(0)


def _work(start: zygote.WorkerStart) -> None:
    stacks.write_on_signal(start.memory)
    worker.run(_worker_context(start))


def _channel(descriptor: int) -> Channel[messages.ToZygote]:
    return Channel(socket.socket(fileno=descriptor), _to_zygote)


def _worker_context(start: zygote.WorkerStart) -> worker.WorkerContext:
    loaded = start.loaded
    return worker.WorkerContext(
        worker=start.worker,
        slot_number=start.slot,
        generation=loaded.generation,
        settings=loaded.settings,
        kind=loaded.kind,
        application=loaded.application,
        hooks=loaded.hooks,
        listeners=loaded.listeners,
        title=loaded.title,
        channel=start.channel,
        memory=start.memory,
        output=start.output,
        handoff=loaded.handoff,
    )


if __name__ == "__main__":
    main()
