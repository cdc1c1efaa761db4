"""An application that has got hold of its worker's channel and slot, or of its zygote's channel."""

import array
import gc
import os
import random
import socket
import struct
import time

import msgspec

from preforkd.errors import Blame, Failure
from preforkd.ipc import messages
from preforkd.ipc.channel import Channel
from preforkd.ipc.handoff import HandoffQueue
from preforkd.ipc.slots import SlotWriter


def _ours(kind):
    return next(thing for thing in gc.get_objects() if type(thing) is kind)


def _words(dice, victim):
    encode = msgspec.msgpack.encode
    yield from (
        encode(messages.Ready()),
        encode(messages.Leaving("x" * 10_000)),
        encode(messages.Failed(Failure(Blame.SYSTEM, "r" * 50_000, "d" * 50_000))),
        encode(messages.Forked(1, victim)),
        encode(messages.Forked(2**63, -1)),
        encode(messages.ForkFailed(1, "gossip")),
        encode(messages.Serve()),
        encode({"type": "forked", "worker": 1, "pid": victim}),
        encode({"type": "ready", "worker": 2**64 - 1, "pid": victim}),
        encode({"type": "leaving", "reason": victim}),
        encode({"type": ["ready"]}),
        b"\x91" * 50_000,
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdd\x7f\xff\xff\xff" + bytes(64),
        bytes(200_000),
        b"\x82\xa4type\xa7leaving\xa6reason\xa2\xff\xfe",
        b"\x81\xa4type\xa2\xff\xfe",
    )
    for _ in range(300):
        yield dice.randbytes(dice.choice([1, 2, 10, 100, 5000]))


def _say(sock, data, dice, victim):
    ancillary = []
    if dice.random() < 0.2:
        rights = array.array("i", [0] * dice.choice([1, 10, 250]))
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights))
    if os.geteuid() == 0 and dice.random() < 0.2:
        sender = struct.pack("3i", victim, 0, 0)
        ancillary.append((socket.SOL_SOCKET, socket.SCM_CREDENTIALS, sender))
    for rights in (ancillary, []):
        try:
            sock.sendmsg([data], rights, socket.MSG_DONTWAIT)
        except BlockingIOError:
            time.sleep(0.01)
        except PermissionError:
            continue  # no descriptors, where the kernel can refuse them
        except OSError:
            pass  # the kernel knows such a sender better
        break


def _gossip(seed, victim):
    dice = random.Random(seed)
    sock = _ours(Channel)._sock
    words = _ours(SlotWriter)._fields
    for data in _words(dice, victim):
        _say(sock, data, dice, victim)
        # Not the last number: what a worker counts beyond it ends it, which is its own loss.
        for index in range(len(words)):
            words[index] = dice.choice([0, 1, 2**63, 2**64 - 2**20, dice.getrandbits(63)])
    # An empty datagram looks like the end of the channel.
    _say(sock, b"", dice, victim)


def _flood():
    # What a worker may say, as fast as it can, until its process ends.
    sock = _ours(Channel)._sock
    said = (messages.ActivityResumed(), messages.RequestLimitReached(), messages.Leaving("again"))
    words = [msgspec.msgpack.encode(message) for message in said]
    while True:
        for data in words:
            sock.send(data)


def _stuck():
    # A socket whose last close waits for an hour, since its peer does not read.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stuck = socket.create_connection(listener.getsockname())
        peers.append(listener.accept()[0])
    stuck.setblocking(False)
    try:
        while stuck.send(bytes(65536)):
            pass
    except BlockingIOError:
        pass
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    return stuck


peers = []


def _send_stuck(where):
    sock = _ours(Channel)._sock if where == "channel" else _ours(HandoffQueue)._sender
    stuck = _stuck()
    for _ in range(5):
        try:
            socket.send_fds(
                sock, [msgspec.msgpack.encode(messages.ActivityResumed())], [stuck.fileno()]
            )
        except PermissionError:
            break
    # Not closed: this process is the one that must not hang, so its end closes it.
    peers.append(stuck)


def application(environ, start_response):
    """``?gossip=SEED,PID`` says and writes everything that it must not, naming this process; ``?flood``.

    ``?stuck=channel`` or ``handoff`` sends descriptors there of which the last close waits.
    """
    query = environ["QUERY_STRING"]
    if query == "flood":
        _flood()
    if query.startswith("stuck="):
        _send_stuck(query.removeprefix("stuck="))
    if query.startswith("gossip="):
        _gossip(*map(int, query.removeprefix("gossip=").split(",")))
    start_response("200 OK", [])
    return [f"{query} pid={os.getpid()}\n".encode()]


if victim := os.environ.get("VICTIM"):
    _channel = socket.socket(fileno=os.dup(3))
    _dice = random.Random(7)
    for _data in _words(_dice, int(victim)):
        _say(_channel, _data, _dice, int(victim))
