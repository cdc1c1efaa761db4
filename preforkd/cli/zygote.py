"""What the master executes as the zygote: from here a process goes from role to role.

The three processes do not import each other; here, above them, a zygote's newborn becomes a worker, and a
warm worker's a zygote.
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
    """Run as a zygote, in each process that it forks as a worker, and so on."""
    memory = STACKS_DESCRIPTOR
    stacks.write_on_signal(memory)
    for descriptor in (CHANNEL_DESCRIPTOR, memory):
        os.set_inheritable(descriptor, False)
    channel = _channel(CHANNEL_DESCRIPTOR)
    birth = zygote.from_scratch(channel, worker.preload, _work)
    while birth is not None:
        # At no time without a handler: the signal would end the process.
        stacks.write_on_signal(birth.memory)
        os.close(memory)
        # Comes back only in a process that this worker has forked to be the next zygote.
        descriptor, memory = worker.run(_worker_context(birth))
        stacks.write_on_signal(memory)
        channel = _channel(descriptor)
        birth = zygote.from_worker(channel, birth.loaded)
    process.exit_process(0)


def _work(birth: zygote.WorkerStart) -> None:
    stacks.write_on_signal(birth.memory)
    worker.run(_worker_context(birth))


def _channel(descriptor: int) -> Channel[messages.ToZygote]:
    return Channel(socket.socket(fileno=descriptor), _to_zygote)


def _worker_context(birth: zygote.WorkerStart) -> worker.WorkerContext:
    loaded = birth.loaded
    return worker.WorkerContext(
        worker=birth.worker,
        slot_number=birth.slot,
        generation=loaded.generation,
        settings=loaded.settings,
        kind=loaded.kind,
        application=loaded.application,
        hooks=loaded.hooks,
        listeners=loaded.listeners,
        title=loaded.title,
        channel=birth.channel,
        memory=birth.memory,
        output=birth.output,
        handoff=loaded.handoff,
    )


if __name__ == "__main__":
    main()
