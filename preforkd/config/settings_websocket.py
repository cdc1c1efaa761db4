"""Settings of WebSockets: sizes, flow control, keep-alive."""

from typing import Annotated, ClassVar

from msgspec import Struct

from preforkd.config.declaration import GENERATION, GIB, HOUR, MIB, Unit, declare
from preforkd.config.kinds import EVENT_LOOP_KINDS


class WebSocketSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """WebSockets of kind asgi."""

    KINDS: ClassVar[tuple[str, ...]] = EVENT_LOOP_KINDS

    max_size: Annotated[
        int,
        declare(
            "Largest size of a message from a client, after decompression; a larger one ends the connection "
            "with code 1009.",
            GENERATION,
            ge=1,
            le=1 * GIB,
            unit=Unit.SIZE,
        ),
    ] = 16 * MIB
    queue: Annotated[
        int,
        declare(
            "Messages of a client that wait for the application; at the limit no more is read from the "
            "connection until the application has taken some.",
            GENERATION,
            ge=1,
            le=10_000,
        ),
    ] = 16
    compression: Annotated[
        bool,
        declare(
            "Accept the extension permessage-deflate if the client offers it. A compressed connection takes "
            "about 64 KiB of memory.",
            GENERATION,
        ),
    ] = True
    ping_interval: Annotated[
        float,
        declare(
            "Time without any data from the client after which it is sent a Ping. 0: none is sent.",
            GENERATION,
            ge=0.0,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 20.0
    ping_timeout: Annotated[
        float,
        declare(
            "Time after a Ping within which something must arrive from the client; otherwise the connection "
            "is closed with code 1011. While websocket.queue is full it does not run.",
            GENERATION,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 20.0
    close_timeout: Annotated[
        float,
        declare(
            "Longest time that the server waits for the client's answer to a Close. At the limit the "
            "connection is closed.",
            GENERATION,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 10.0
