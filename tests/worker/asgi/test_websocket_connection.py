"""The connection of a WebSocket: flow control, Pings, and how it ends."""

import pytest

pytest.importorskip("websockets")

from preforkd.config.settings import HttpSettings
from tests.worker.asgi.websocket_frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    close_frame,
    codes,
    frame,
)
from tests.worker.asgi.websocket_talk import Application, talking


def opened(talk):
    """Take the answer to the handshake."""
    assert talk.accepted()[0] == "HTTP/1.1 101 Switching Protocols"
    return talk


# --- messages ------------------------------------------------------------------------------------


def test_messages_reach_the_application_and_its_own_the_client():
    application = Application()
    application.echo = True
    with talking(application) as talk:
        opened(talk)
        talk.feed(frame(TEXT, "κόσμε".encode()) + frame(BINARY, b"\xff\0"))
        assert application.received == [
            {"type": "websocket.receive", "text": "κόσμε"},
            {"type": "websocket.receive", "bytes": b"\xff\0"},
        ]
        assert talk.frames() == [(0x81, "κόσμε".encode()), (0x82, b"\xff\0")]


def test_each_message_is_one_write():
    """A message of some KiB does not cost two system calls."""
    application = Application()
    application.echo = True
    with talking(application) as talk:
        opened(talk)
        talk.feed(frame(BINARY, bytes(20_000)))
        assert len(talk.transport.written) == 1


def test_frames_behind_the_handshake_are_read():
    """A client may send them with it, or before it has read the answer."""
    application = Application()
    with talking(application, more=frame(TEXT, b"early") + frame(TEXT, b"split")[:4]) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"split")[4:])
        assert application.messages == ["early", "split"]


def test_a_text_split_across_segments():
    application = Application()
    with talking(application) as talk:
        opened(talk)
        data = frame(TEXT, "κό".encode()[:3], fin=False) + frame(CONT, "κό".encode()[3:])
        for at in range(len(data)):
            talk.feed(data[at : at + 1])
        assert application.messages == ["κό"]


# --- flow control --------------------------------------------------------------------------------


def test_a_full_queue_pauses_reading_until_half_of_it_is_taken():
    """No more than the allowed number waits, also when one segment has many more."""
    application = Application()
    application.hold = True
    with talking(application, queue=4) as talk:
        opened(talk)
        talk.feed(b"".join(frame(TEXT, b"%d" % number) for number in range(3)))
        assert talk.transport.calls == []
        talk.feed(b"".join(frame(TEXT, b"%d" % number) for number in range(3, 50)))
        assert talk.transport.calls == ["pause"]
        assert len(talk.websocket._queue) == 4
        application.hold = False
        talk.turn()
        assert application.messages == [str(number) for number in range(50)]
        assert talk.transport.calls == ["pause", "resume"]
        talk.feed(frame(TEXT, b"more"))
        assert application.messages[-1] == "more"


def test_reading_stays_paused_while_the_rest_of_the_input_fills_the_queue():
    """What was received before the pause comes first."""
    application = Application()
    application.hold = True
    with talking(application, queue=4) as talk:
        opened(talk)
        talk.feed(b"".join(frame(TEXT, b"%d" % number) for number in range(8)))
        queue = talk.websocket._queue
        for expected in ("0", "1"):
            assert talk.loop.run_until_complete(talk.websocket.receive())["text"] == expected
        assert talk.transport.calls == ["pause"]  # it is full again
        assert [one["text"] for one in queue] == ["2", "3", "4", "5"]


def test_a_queue_of_one():
    application = Application()
    application.hold = True
    with talking(application, queue=1) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"a") + frame(TEXT, b"b"))
        assert talk.transport.calls == ["pause"]
        application.hold = False
        talk.turn()
        assert application.messages == ["a", "b"]
        assert talk.transport.is_reading()


def test_a_close_behind_a_full_queue_comes_last():
    application = Application()
    application.hold = True
    with talking(application, queue=2) as talk:
        opened(talk)
        talk.feed(b"".join(frame(TEXT, b"%d" % number) for number in range(5)) + close_frame(1001))
        assert talk.output() == b""
        application.hold = False
        talk.turn()
        assert application.messages == list("01234")
        assert application.disconnect == (1001, "")
        assert talk.transport.calls[-1] == "close"


def test_an_error_behind_a_full_queue_comes_last():
    """The valid messages before it are the application's."""
    application = Application()
    application.hold = True
    with talking(application, queue=2) as talk:
        opened(talk)
        talk.feed(b"".join(frame(TEXT, b"%d" % number) for number in range(5)) + b"\xff\xff")
        application.hold = False
        talk.turn()
        assert application.messages == list("01234")
        assert application.disconnect[0] == 1002


def test_send_waits_while_the_client_takes_nothing():
    """The message is passed on when the transport has room again, and not before."""
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.websocket.pause_writing()
        sending = talk.loop.create_task(application.send({"type": "websocket.send", "text": "a"}))
        talk.turn()
        assert not sending.done()
        assert talk.output() == b""
        talk.websocket.resume_writing()
        talk.turn()
        assert sending.done()
        assert talk.frames() == [(0x81, b"a")]


def test_a_send_that_waits_raises_when_the_connection_is_lost():
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.websocket.pause_writing()
        sending = talk.loop.create_task(application.send({"type": "websocket.send", "text": "a"}))
        talk.turn()
        talk.lose()
        assert isinstance(sending.exception(), OSError)


def test_reading_goes_on_while_output_is_held_up():
    """A client that is sent much can still say that it wants no more."""
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.websocket.pause_writing()
        talk.feed(frame(TEXT, b"stop"))
        assert application.messages == ["stop"]


def test_a_client_that_takes_too_little_is_cut_off():
    """The timeout for sending is that of HTTP; the application gets a disconnect."""
    application = Application()
    with talking(application, http=HttpSettings(body_timeout=30.0), ping_interval=0.0) as talk:
        opened(talk)
        talk.wait(100)
        talk.transport.buffered = 5000
        talk.wait(29)
        assert "abort" not in talk.transport.calls
        talk.wait(31.5)
        assert talk.transport.calls == ["abort"]
        assert application.disconnect == (1006, "")


# --- Pings ---------------------------------------------------------------------------------------


def test_a_ping_is_answered_at_once():
    with talking(Application()) as talk:
        opened(talk)
        talk.feed(frame(PING, b"a") + frame(TEXT, b"x") + frame(PING, b"b"))
        assert talk.frames() == [(0x80 | PONG, b"a"), (0x80 | PONG, b"b")]


def test_of_pings_while_output_is_held_up_only_the_last_is_answered():
    """5.5.3; a flood of Pings that is never read takes no memory."""
    with talking(Application()) as talk:
        opened(talk)
        talk.websocket.pause_writing()
        for number in range(1000):
            talk.feed(frame(PING, b"%d" % number))
        assert talk.output() == b""
        talk.websocket.resume_writing()
        assert talk.frames() == [(0x80 | PONG, b"999")]
        talk.websocket.pause_writing()
        talk.websocket.resume_writing()
        assert talk.frames() == []


def test_a_silent_client_is_sent_pings_and_stays_while_it_answers():
    with talking(Application(), ping_interval=20.0, ping_timeout=5.0) as talk:
        opened(talk)
        for _ in range(5):
            talk.wait(19.9)
            assert talk.frames() == []
            talk.wait(0.2)
            assert talk.frames() == [(0x80 | PING, b"")]
            talk.wait(4)
            talk.feed(frame(PONG))
        assert talk.transport.calls == []


def test_a_client_that_sends_is_not_sent_pings():
    """Any data shows that it lives."""
    with talking(Application(), ping_interval=20.0) as talk:
        opened(talk)
        for _ in range(10):
            talk.wait(15)
            talk.feed(frame(TEXT, b"x"))
        assert talk.frames() == []
        talk.wait(20)
        assert talk.frames() == [(0x80 | PING, b"")]


def test_a_client_that_answers_no_ping_is_disconnected():
    application = Application()
    with talking(application, ping_interval=20.0, ping_timeout=5.0) as talk:
        opened(talk)
        talk.wait(24.9)
        assert talk.frames() == [(0x80 | PING, b"")]
        assert talk.transport.calls == []
        talk.wait(0.2)
        assert codes(talk.output()) == [1011]
        assert application.disconnect == (1011, "no answer to a Ping")
        talk.wait(10)
        assert talk.transport.calls == ["eof", "close"]


def test_part_of_a_message_is_an_answer_to_a_ping():
    """A Pong cannot overtake a large message on a slow line."""
    with talking(Application(), ping_interval=20.0, ping_timeout=5.0) as talk:
        opened(talk)
        talk.wait(20)
        assert talk.frames() == [(0x80 | PING, b"")]
        data = frame(BINARY, bytes(1000))
        talk.feed(data[:500])
        talk.wait(6)
        assert talk.frames() == []
        assert talk.transport.calls == []


def test_no_ping_is_sent_at_an_interval_of_zero():
    with talking(Application(), ping_interval=0.0) as talk:
        opened(talk)
        talk.wait(10_000)
        assert talk.frames() == []
        assert talk.transport.calls == []


@pytest.mark.parametrize("cause", ["queue", "output"])
def test_a_client_that_cannot_answer_is_not_disconnected(cause):
    """Its Pong waits behind messages that the application does not take, or our Ping behind other output."""
    application = Application()
    with talking(application, ping_interval=20.0, ping_timeout=5.0, queue=1) as talk:
        opened(talk)
        talk.wait(20)
        assert talk.frames() == [(0x80 | PING, b"")]
        if cause == "queue":
            application.hold = True
            talk.turn()
            talk.websocket.data_received(frame(TEXT, b"a") * 2)
            talk.loop.now += 1000  # nothing arrives: nothing is read
        else:
            talk.transport.buffered = 1
            talk.loop.now += 25
        talk.turn()
        assert talk.frames() == []
        assert "eof" not in talk.transport.calls


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code", "reason", "answer"),
    [
        (close_frame(1000), 1000, "", b"\x03\xe8"),
        (close_frame(1001, b"bye"), 1001, "bye", b"\x03\xe9"),
        (close_frame(4999, b"x"), 4999, "x", b"\x13\x87"),
        (frame(CLOSE), 1005, "", b""),
    ],
)
def test_a_close_of_the_client_is_answered_with_its_code(sent, code, reason, answer):
    """5.5.1, 7.1.1: then the server closes the connection first."""
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.feed(sent)
        assert talk.frames() == [(0x80 | CLOSE, answer)]
        assert talk.transport.calls == ["close"]
        assert application.disconnect == (code, reason)
        assert talk.ended
        assert talk.lost == [talk.websocket]


def test_a_close_between_fragments_is_answered():
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"a", fin=False) + close_frame(1000))
        assert codes(talk.output()) == [1000]
        assert application.received == [
            {"type": "websocket.disconnect", "code": 1000, "reason": ""}
        ]


def test_messages_before_a_close_can_be_answered():
    """The Close is answered when the application asks for the message behind them."""
    application = Application()
    application.echo = True
    with talking(application, queue=2) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(TEXT, b"c") + close_frame(1000))
        assert talk.frames() == [
            (0x81, b"a"),
            (0x81, b"b"),
            (0x81, b"c"),
            (0x80 | CLOSE, b"\x03\xe8"),
        ]
        assert talk.transport.calls[-1] == "close"
        assert application.disconnect == (1000, "")


def test_an_application_that_takes_no_message_does_not_delay_a_close_forever():
    """Nor is anything read behind the Close, which would fill the memory."""
    application = Application()
    application.hold = True
    with talking(application, close_timeout=10.0) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"a") + close_frame(1001) + b"behind")
        assert not talk.transport.is_reading()
        talk.wait(9.9)
        assert talk.output() == b""
        talk.wait(0.2)
        assert codes(talk.output()) == [1001]
        application.hold = False
        talk.turn()
        assert application.messages == ["a"]
        assert application.disconnect == (1001, "")


def test_a_close_of_the_application_answers_one_that_waits():
    application = Application()
    application.hold = True
    with talking(application) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"a") + close_frame(1001))
        talk.loop.run_until_complete(application.send({"type": "websocket.close", "code": 3000}))
        assert codes(talk.output()) == [3000]
        assert talk.transport.calls == ["pause", "close"]


def test_pings_before_a_close_are_answered_before_it():
    with talking(Application()) as talk:
        opened(talk)
        talk.feed(frame(PING, b"a") + close_frame(1000))
        assert talk.frames() == [(0x80 | PONG, b"a"), (0x80 | CLOSE, b"\x03\xe8")]


def test_data_behind_a_close_is_dropped_without_a_reset():
    """Closing a connection with unread input would destroy the answer: it is read for some time."""
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.feed(close_frame(1000) + frame(TEXT, b"late"))
        assert codes(talk.output()) == [1000]
        assert talk.transport.calls == ["eof"]
        talk.feed(frame(TEXT, b"later") + b"\xff\xff")
        assert application.messages == []
        assert talk.output() == b""
        talk.wait(1.9)
        assert talk.transport.calls == ["eof"]
        talk.wait(0.2)
        assert talk.transport.calls == ["eof", "close"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff"), 1007),
        (frame(BINARY, bytes(101)), 1009),
        (frame(CONT, b"x"), 1002),
        (frame(TEXT, b"x", mask=b""), 1002),
        (frame(TEXT, b"x", rsv=4), 1002),
        (frame(3, b"x"), 1002),
        (close_frame(1005), 1002),
        (close_frame(1000, b"\xff"), 1007),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(PING, bytes(126)), 1002),
    ],
)
def test_a_client_that_breaks_the_protocol_gets_a_close(data, code):
    """7.1.7: with the code; what it sends then is dropped, and the application is informed."""
    application = Application()
    with talking(application, max_size=100, compression=False) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"fine") + data)
        assert codes(talk.output()) == [code]
        assert application.messages == ["fine"]
        assert application.disconnect[0] == code
        assert talk.transport.calls == ["eof"]
        talk.feed(frame(TEXT, b"late") + close_frame(1000))
        assert talk.output() == b""
        assert talk.websocket.eof_received() is None  # the transport then closes itself
        talk.wait(2.1)
        assert talk.transport.calls == ["eof", "close"]


def test_where_the_stream_has_no_end_of_its_own_the_connection_is_closed():
    """TLS in asyncio."""
    with talking(Application()) as talk:
        opened(talk)
        talk.transport.half_close = False
        talk.feed(b"\xff\xff")
        assert codes(talk.output()) == [1002]
        assert talk.transport.calls == ["close"]


def test_our_close_waits_for_the_clients():
    """7.1.1; messages in between are dropped, Pings are not answered: nothing follows a Close."""
    application = Application()
    with talking(application, close_timeout=10.0) as talk:
        opened(talk)
        talk.loop.run_until_complete(
            application.send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        )
        talk.turn()
        assert talk.frames() == [(0x80 | CLOSE, b"\x0f\xa0enough")]
        assert talk.transport.calls == []
        talk.feed(frame(TEXT, b"late") + frame(PING, b"x"))
        talk.wait(5)
        assert talk.transport.calls == []
        talk.feed(close_frame(4000))
        assert talk.transport.calls == ["close"]
        assert talk.output() == b""
        assert application.messages == []
        assert application.disconnect == (4000, "enough")


def test_our_close_does_not_wait_forever():
    application = Application()
    with talking(application, close_timeout=10.0) as talk:
        opened(talk)
        talk.loop.run_until_complete(application.send({"type": "websocket.close"}))
        assert codes(talk.output()) == [1000]
        talk.wait(9.9)
        assert talk.transport.calls == []
        talk.wait(0.2)
        assert talk.transport.calls == ["close"]
        assert talk.lost == [talk.websocket]


def test_our_close_frees_a_full_queue():
    """The client's Close may be behind many messages: they are read, and dropped."""
    application = Application()
    application.hold = True
    with talking(application, queue=1) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"a") * 10)
        assert not talk.transport.is_reading()
        talk.loop.run_until_complete(application.send({"type": "websocket.close"}))
        assert talk.transport.is_reading()
        talk.feed(frame(TEXT, b"a") * 10 + close_frame())
        assert talk.transport.calls == ["pause", "resume", "close"]


def test_garbage_behind_our_close_ends_the_connection_without_another_close():
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.loop.run_until_complete(application.send({"type": "websocket.close"}))
        assert codes(talk.output()) == [1000]
        talk.feed(b"\xff\xff")
        assert talk.output() == b""
        assert talk.transport.calls == ["eof"]
        assert application.disconnect == (1000, "")


def test_no_ping_is_sent_behind_our_close():
    application = Application()
    with talking(application, ping_interval=1.0, close_timeout=100.0) as talk:
        opened(talk)
        talk.loop.run_until_complete(application.send({"type": "websocket.close"}))
        talk.output()
        talk.wait(50)
        assert talk.output() == b""


def test_a_late_pong_does_not_follow_a_close():
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.websocket.pause_writing()
        talk.feed(frame(PING, b"x"))
        talk.feed(close_frame())
        talk.transport.closing = False
        talk.output()
        talk.websocket.resume_writing()
        assert talk.output() == b""


@pytest.mark.parametrize("state", ["open", "closed"])
def test_a_lost_connection(state):
    """7.1.5: without a Close the code is 1006; no timer stays."""
    application = Application()
    with talking(application) as talk:
        opened(talk)
        if state == "closed":
            talk.loop.run_until_complete(application.send({"type": "websocket.close"}))
        talk.lose()
        assert application.disconnect == ((1006, "") if state == "open" else (1000, ""))
        assert talk.lost == [talk.websocket]
        assert [one for one in talk.loop._scheduled if not one.cancelled()] == []


def test_the_end_of_the_stream_without_a_close():
    """The transport closes itself when `eof_received` returns nothing."""
    application = Application()
    with talking(application) as talk:
        opened(talk)
        assert not talk.websocket.eof_received()
        talk.transport.close()
        talk.turn()
        assert application.disconnect == (1006, "")


def test_every_receive_after_the_end_returns_the_disconnect():
    application = Application()
    with talking(application) as talk:
        opened(talk)
        talk.feed(close_frame(1001, b"bye"))
        again = talk.loop.run_until_complete(talk.websocket.receive())
        assert again == {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}


def test_a_receive_that_is_cancelled_loses_no_message():
    """asyncio.timeout around receive() may end in the turn in which a message arrives."""
    application = Application()
    application.hold = True
    with talking(application) as talk:
        opened(talk)
        receiving = talk.loop.create_task(talk.websocket.receive())
        talk.turn()
        talk.websocket.data_received(frame(TEXT, b"a"))
        receiving.cancel()
        talk.turn()
        assert receiving.cancelled()
        assert talk.loop.run_until_complete(talk.websocket.receive())["text"] == "a"


def test_cancelled_receives_leave_nothing_behind():
    """An application may call receive() with a timeout for days."""
    application = Application()
    application.hold = True
    with talking(application) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"a"))
        talk.loop.run_until_complete(talk.websocket.receive())
        for _ in range(3):
            receiving = talk.loop.create_task(talk.websocket.receive())
            talk.turn()
            receiving.cancel()
            talk.turn()
        assert talk.websocket._waiters == []


def test_two_receives_at_once_each_get_a_message():
    application = Application()
    application.hold = True
    with talking(application) as talk:
        opened(talk)
        talk.feed(frame(TEXT, b"0"))
        talk.loop.run_until_complete(talk.websocket.receive())
        both = [talk.loop.create_task(talk.websocket.receive()) for _ in range(2)]
        talk.turn()
        talk.feed(frame(TEXT, b"a"))
        assert sum(one.done() for one in both) == 1
        talk.feed(frame(TEXT, b"b"))
        assert [one.result()["text"] for one in both] == ["a", "b"]
