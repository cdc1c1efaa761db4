"""What the master executes as the zygote: from here a process goes from role to role.

The three processes do not import each other; here, above them, a zygote's newborn becomes a worker.
"""

import socket

import msgspec

from preforkd.ipc import messages
from preforkd.ipc.channel import Channel
from preforkd.linux import process
from preforkd.worker import run as worker
from preforkd.zygote import zygote

CHANNEL_DESCRIPTOR = 3


def main() -> None:
    """Run as a zygote, and in each process that it forks as a worker."""
    channel: Channel[messages.ToZygote] = Channel(
        socket.socket(fileno=CHANNEL_DESCRIPTOR),
        msgspec.msgpack.Decoder(messages.ToZygote),
    )
    birth = zygote.from_scratch(channel, worker.preload)
    if birth is None:
        process.leave(0)
    loaded = birth.loaded
    worker.run(
        worker.Seat(
            worker=birth.worker,
            slot=birth.slot,
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
            exchange=loaded.exchange,
        )
    )


if __name__ == "__main__":
    main()
