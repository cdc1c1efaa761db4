"""A WebSocket and its application: the messages of ASGI, its answers to the handshake, its failures."""

import asyncio
import logging

import pytest

pytest.importorskip("websockets")

from preforkd.worker.asgi.cycle import ClientDisconnectedError
from tests.worker.asgi.websocket_frames import CLOSE, TEXT, close_frame, codes, frame, parsed
from tests.worker.asgi.websocket_talk import Application, talking

OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
CHAT = b"Sec-WebSocket-Protocol: chat, superchat\r\n"


def sending(*messages, after=None):
    """Return an application that sends these messages, and then waits or does what ``after`` does."""

    async def application(scope, receive, send):
        await receive()
        for message in messages:
            await send(message)
        if after is not None:
            await after(receive, send)

    return application


async def waits(receive, send):
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def fails(receive, send):
    raise ValueError("its own")


ACCEPT = {"type": "websocket.accept"}
REJECT = {"type": "websocket.close"}


def logged(talk):
    """Return status and bytes of the access log's entry; there is one for each WebSocket."""
    [entry] = talk.entries
    assert entry.remote == "1.2.3.4"
    assert entry.request.target == b"/chat?x=1"
    return entry.status, entry.length


# --- the handshake -------------------------------------------------------------------------------


def test_the_scope():
    """ASGI: what the application gets instead of an HTTP request."""
    application = Application()
    with talking(application, CHAT) as talk:
        scope = application.scope
        assert scope["type"] == "websocket"
        assert scope["scheme"] == "ws"
        assert scope["path"] == "/chat"
        assert scope["subprotocols"] == ["chat", "superchat"]
        assert scope["extensions"] == {"websocket.http.response": {}}
        assert "method" not in scope
        assert (b"host", b"h") in scope["headers"]
        assert not talk.ended


def test_over_tls_the_scheme_is_wss():
    """Also where a proxy states it; the extension tls stays, those of HTTP responses do not."""
    application = Application()
    scope = {
        "scheme": "https",
        "extensions": {"tls": {"tls_version": 772}, "http.response.push": {}},
    }
    with talking(application, scope=scope):
        assert application.scope["scheme"] == "wss"
        assert application.scope["extensions"] == {
            "websocket.http.response": {},
            "tls": {"tls_version": 772},
        }


def test_an_accept_is_answered_with_101():
    with talking(sending(ACCEPT, after=waits)) as talk:
        lines = talk.accepted()
        assert lines[:4] == [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ]
        assert [line.partition(":")[0] for line in lines[4:]] == ["Server", "Date"]
        assert talk.output() == b""


def test_an_accept_with_headers_and_a_subprotocol():
    accept = {
        **ACCEPT,
        "subprotocol": "superchat",
        "headers": [(b"Set-Cookie", b"a=1"), (b"x-y", b"z"), (b"connection", b"close")],
    }
    with talking(sending(accept, after=waits), CHAT) as talk:
        lines = talk.accepted()
        assert "Sec-WebSocket-Protocol: superchat" in lines
        assert "Set-Cookie: a=1" in lines
        assert "x-y: z" in lines
        assert [one for one in lines if one.lower().startswith("connection")] == [
            "Connection: Upgrade"
        ]


@pytest.mark.parametrize(
    "accept",
    [
        {"subprotocol": "other"},
        {"headers": [(b"x", b"a\r\nY: b")]},
        {"headers": [(b"a b", b"")]},
        {"headers": [(b"Sec-WebSocket-Protocol", b"chat")]},
        {"headers": [(b"sec-websocket-extensions", b"x")]},
    ],
)
def test_an_accept_that_is_not_valid_is_an_error_of_the_application(accept, caplog):
    """What was not negotiated, or would be another header: nothing of it is sent."""
    with talking(sending({**ACCEPT, **accept}), CHAT) as talk:
        assert talk.output().startswith(b"HTTP/1.1 500 ")
        assert len(caplog.records) == 1
        assert caplog.records[0].exc_info[0] is ValueError


@pytest.mark.parametrize("compression", [True, False])
@pytest.mark.parametrize("offer", [OFFER, b""])
def test_compression_is_negotiated_if_it_is_offered_and_allowed(offer, compression):
    text = "abc" * 100
    message = {"type": "websocket.send", "text": text}
    application = sending(ACCEPT, message, after=waits)
    with talking(application, offer, compression=compression) as talk:
        lines = talk.accepted()
        agreed = [one for one in lines if one.startswith("Sec-WebSocket-Extensions")]
        [(first, payload)] = talk.frames()
        if offer and compression:
            [accepted] = agreed
            assert accepted.partition(": ")[2].split("; ") == [
                "permessage-deflate",
                "server_max_window_bits=12",
                "client_max_window_bits=12",
            ]
            assert first == 0xC1
            assert len(payload) < 50
        else:
            assert agreed == []
            assert (first, payload) == (0x81, text.encode())


def test_a_rejected_handshake_is_answered_with_403():
    with talking(sending(REJECT, after=waits)) as talk:
        assert talk.output().startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert talk.transport.calls == ["close"]
        assert talk.ended  # it was sent a disconnect
        assert logged(talk) == (403, 0)
        assert talk.lost == [talk.websocket]


def test_a_client_that_leaves_before_the_answer():
    """The application gets a disconnect; there is no answer, as nobody can read it, and no error."""
    seen = []

    async def application(scope, receive, send):
        seen.append((await receive())["type"])
        seen.append(await receive())

    with talking(application) as talk:
        talk.lose()
        assert seen == [
            "websocket.connect",
            {"type": "websocket.disconnect", "code": 1006, "reason": ""},
        ]
        assert talk.output() == b""
        assert logged(talk) == (499, 0)


def test_input_before_the_answer_is_bounded():
    """It is kept up to a size, and then nothing is read until the answer."""
    ready = asyncio.Event()

    async def application(scope, receive, send):
        await receive()
        await ready.wait()
        await send(ACCEPT)
        await waits(receive, send)

    with talking(application, queue=100_000 // 1000 + 1) as talk:
        data = frame(TEXT, b"x" * 992) * 100
        sent = 0
        while talk.transport.is_reading():
            talk.feed(data[sent : sent + 10_000])
            sent += 10_000
        assert 64 * 1024 <= sent < 80_000
        ready.set()
        talk.turn()
        assert talk.transport.is_reading()
        talk.accepted()
        talk.feed(data[sent:] + close_frame())
        assert codes(talk.output()) == [1000]


# --- responses instead of a WebSocket -------------------------------------------------------------


def response(status=401, headers=(), *, more=False, body=b""):
    return [
        {"type": "websocket.http.response.start", "status": status, "headers": headers},
        {"type": "websocket.http.response.body", "body": body, "more_body": more},
    ]


def test_a_response_in_one_part():
    messages = response(401, [(b"www-authenticate", b"Basic")], body=b"who are you")
    with talking(sending(*messages, after=waits)) as talk:
        head, _, body = talk.output().partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 401 Unauthorized"
        assert b"www-authenticate: Basic" in lines
        assert b"Content-Length: 11" in lines
        assert b"Connection: close" in lines
        assert body == b"who are you"
        assert talk.transport.calls == ["close"]
        assert talk.ended
        assert logged(talk) == (401, 11)


def test_a_response_in_parts():
    start, first = response(404, more=True, body=b"not ")
    rest = [
        {"type": "websocket.http.response.body", "body": b"here", "more_body": True},
        {"type": "websocket.http.response.body"},
    ]
    with talking(sending(start, first, *rest)) as talk:
        head, _, body = talk.output().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert body == b"4\r\nnot \r\n4\r\nhere\r\n0\r\n\r\n"
        assert talk.transport.calls == ["close"]
        assert logged(talk) == (404, 8)


def test_a_response_that_is_cut_off_is_not_complete_for_the_client(caplog):
    """The application ends within it: no last chunk follows."""
    with talking(sending(*response(200, more=True, body=b"part"))) as talk:
        assert talk.output().endswith(b"4\r\npart\r\n")
        assert talk.transport.calls == ["abort"]
        assert "has not answered" in caplog.text
        assert logged(talk) == (200, 4)


@pytest.mark.parametrize("after", [None, fails])
def test_a_response_without_a_body_message_is_an_error(after, caplog):
    with talking(sending(response()[0], after=after)) as talk:
        assert talk.output().startswith(b"HTTP/1.1 500 ")
        assert len(caplog.records) == 1
        assert logged(talk) == (500, 0)


# --- what may be sent when -----------------------------------------------------------------------

SEND = {"type": "websocket.send", "text": "x"}
START, BODY = response()


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ([], SEND),
        ([], BODY),
        ([], {"type": "http.response.start", "status": 200, "headers": []}),
        ([], {"type": "websocket.other"}),
        ([ACCEPT], ACCEPT),
        ([ACCEPT], START),
        ([ACCEPT], {"type": "other"}),
        ([START], ACCEPT),
        ([START], START),
        ([START], SEND),
        ([START], REJECT),
        ([START, BODY], BODY),
        ([ACCEPT, {"type": "websocket.close"}], SEND),
        ([ACCEPT, {"type": "websocket.close"}], {"type": "websocket.close"}),
        ([REJECT], ACCEPT),
    ],
)
def test_a_message_at_the_wrong_time_is_an_error(before, message, caplog):
    """The application learns what it did, by an exception; the client sees nothing of that message."""
    caught = []

    async def tries(receive, send):
        try:
            await send(message)
        except RuntimeError as error:
            caught.append(str(error))
            raise

    with talking(sending(*before, after=tries)):
        [text] = caught
        assert message["type"] in text
        assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.close", "code": 1005, "reason": "x"},
        {"type": "websocket.close", "code": 999},
        {"type": "websocket.close", "code": 1000, "reason": "x" * 124},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": "\ud800"},
    ],
)
def test_an_invalid_message_is_an_error_and_ends_with_1011(message, caplog):
    with talking(sending(ACCEPT, message)) as talk:
        talk.accepted()
        assert codes(talk.output()) == [1011]
        assert len(caplog.records) == 1


def test_bytes_and_text_of_a_message():
    """One of both is None, or missing."""
    messages = [
        {"type": "websocket.send", "text": "a", "bytes": None},
        {"type": "websocket.send", "text": None, "bytes": b"b"},
        {"type": "websocket.send", "bytes": b""},
        {"type": "websocket.send", "text": ""},
        {"type": "websocket.send", "bytes": bytearray(b"c")},
    ]
    with talking(sending(ACCEPT, *messages, after=waits)) as talk:
        talk.accepted()
        assert talk.frames() == [(0x81, b"a"), (0x82, b"b"), (0x82, b""), (0x81, b""), (0x82, b"c")]


# --- the end of the application ------------------------------------------------------------------


def test_an_application_that_fails_before_the_accept_is_answered_with_500(caplog):
    with talking(sending(after=fails)) as talk:
        assert talk.output().startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert talk.transport.calls == ["close"]
        [record] = caplog.records
        assert record.name == "preforkd.app"
        assert record.levelno == logging.ERROR
        assert record.getMessage() == "the application failed on WebSocket /chat?x=1"
        assert record.exc_info[0] is ValueError
        assert logged(talk) == (500, 0)
        assert talk.done == 1


def test_an_application_that_fails_after_the_accept_ends_with_1011(caplog):
    with talking(sending(ACCEPT, after=fails)) as talk:
        talk.accepted()
        assert talk.frames() == [(0x80 | CLOSE, b"\x03\xf3")]
        assert talk.transport.calls == []  # the client's Close is awaited
        assert len(caplog.records) == 1
        talk.feed(close_frame(1011))
        assert talk.transport.calls == ["close"]
        assert logged(talk) == (101, 0)


def test_an_application_that_returns_ends_with_1000(caplog):
    with talking(sending(ACCEPT)) as talk:
        talk.accepted()
        assert codes(talk.output()) == [1000]
        assert talk.done == 1
        assert not caplog.records
        assert logged(talk) == (101, 0)


def test_an_application_that_returns_without_an_answer_is_answered_with_500(caplog):
    with talking(sending()) as talk:
        assert talk.output().startswith(b"HTTP/1.1 500 ")
        assert "has not answered WebSocket /chat?x=1" in caplog.text
        assert logged(talk) == (500, 0)


def test_an_application_that_closes_and_returns_sends_one_close():
    close = {"type": "websocket.close", "code": 3001, "reason": None}
    with talking(sending(ACCEPT, close)) as talk:
        talk.accepted()
        assert talk.frames() == [(0x80 | CLOSE, b"\x0b\xb9")]


@pytest.mark.parametrize("accepted", [True, False])
def test_an_application_that_exits_ends_the_process_and_the_websocket(accepted, caplog):
    """SystemExit retires the worker; the client is not left without an answer."""

    async def exits(receive, send):
        raise SystemExit(3)

    with talking(sending(*[ACCEPT][:accepted], after=exits)) as talk:
        assert talk.exits == ["retire", "wake"]
        output = talk.output()
        if accepted:
            assert codes(output.partition(b"\r\n\r\n")[2]) == [1011]
        else:
            assert output.startswith(b"HTTP/1.1 500 ")
        assert caplog.records[0].exc_info[0] is SystemExit


def test_an_application_that_is_cancelled_by_itself_has_failed(caplog):
    """As by a task of its own that it awaits: the drain has nothing to do with it."""

    async def cancels(receive, send):
        raise asyncio.CancelledError

    with talking(sending(ACCEPT, after=cancels)) as talk:
        talk.accepted()
        assert codes(talk.output()) == [1011]
        assert talk.exits == []
    assert len(caplog.records) == 1


# --- clients that are gone -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lost", "closed", "broken"])
def test_what_is_sent_to_a_client_that_is_gone_raises_an_oserror(how, caplog):
    """Any client can leave: what the application then raises is not logged."""
    application = Application()
    with talking(application) as talk:
        talk.accepted()
        application.hold = True
        talk.feed(frame(TEXT, b"wake"))
        if how == "lost":
            talk.lose()
        else:
            talk.feed(close_frame() if how == "closed" else b"\xff\xff")
        talk.output()
        send = application.send({"type": "websocket.send", "text": "x"})
        with pytest.raises(OSError, match=r"the WebSocket is disconnected$"):
            talk.loop.run_until_complete(send)
        talk.loop.run_until_complete(application.send({"type": "websocket.close"}))  # no error
        assert talk.output() == b""
    assert not caplog.records


async def raises_as_it_is(send):
    await send(SEND)


async def raises_another(send):
    try:
        await send(SEND)
    except OSError:
        raise KeyError("made from it") from None


async def raises_a_group(send):
    try:
        await send(SEND)
    except OSError as error:
        raise ExceptionGroup("of tasks", [error, ExceptionGroup("more", [error])]) from None


@pytest.mark.parametrize("act", [raises_as_it_is, raises_another, raises_a_group])
def test_an_error_that_came_from_a_client_that_is_gone_is_not_logged(act, caplog):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await act(send)

    with talking(application) as talk:
        talk.accepted()
        talk.feed(close_frame(1001))
        assert talk.ended
        assert codes(talk.output()) == [1001]
        assert talk.done == 1
    assert not caplog.records


@pytest.mark.parametrize("grouped", [True, False])
def test_an_error_of_the_application_is_logged_though_the_client_is_gone(grouped, caplog):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await waits(receive, send)
        error = ValueError("its own")
        raise ExceptionGroup("both", [ClientDisconnectedError(), error]) if grouped else error

    with talking(application) as talk:
        talk.accepted()
        talk.feed(close_frame(1001))
        assert talk.ended
    assert len(caplog.records) == 1


def test_an_oserror_of_the_application_is_logged(caplog):
    """Only that of our own send() is the client's fault."""

    async def refused(receive, send):
        raise ConnectionRefusedError

    with talking(sending(ACCEPT, after=refused)) as talk:
        talk.accepted()
        assert codes(talk.output()) == [1011]
    assert len(caplog.records) == 1


# --- the drain -----------------------------------------------------------------------------------


def test_the_drain_closes_with_1012():
    """The application gets a disconnect with that code, behind the messages that have arrived."""
    application = Application()
    with talking(application) as talk:
        talk.accepted()
        application.hold = True
        talk.feed(frame(TEXT, b"before"))
        talk.websocket.shutdown()
        assert codes(talk.output()) == [1012]
        talk.feed(frame(TEXT, b"behind"))
        application.hold = False
        talk.turn()
        assert application.messages == ["before"]
        assert application.disconnect == (1012, "")
        assert talk.transport.calls == []
        talk.feed(close_frame(1012))
        assert talk.transport.calls == ["close"]


def test_what_is_sent_in_the_drain_raises_an_oserror(caplog):
    """The application may not know yet."""
    application = Application()
    with talking(application) as talk:
        talk.accepted()
        talk.websocket.shutdown()
        with pytest.raises(OSError, match=r"the WebSocket is disconnected$"):
            talk.loop.run_until_complete(application.send(SEND))
    assert not caplog.records


def test_the_drain_answers_a_handshake_with_503():
    application = sending(after=waits)
    with talking(application) as talk:
        talk.websocket.shutdown()
        talk.turn()
        assert talk.output().startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert talk.ended
        assert logged(talk) == (503, 0)


def test_an_accept_in_the_drain_raises_an_oserror(caplog):
    ready = asyncio.Event()

    async def application(scope, receive, send):
        await ready.wait()
        await send(ACCEPT)

    with talking(application) as talk:
        talk.websocket.shutdown()
        assert talk.output().startswith(b"HTTP/1.1 503 ")
        ready.set()
        talk.turn()
        assert talk.output() == b""
        assert talk.ended
    assert not caplog.records


def test_the_drain_completes_a_response_that_has_begun():
    ready = asyncio.Event()

    async def finishes(receive, send):
        await ready.wait()
        await send(BODY)

    messages = response(200, more=True, body=b"part")
    with talking(sending(*messages, after=finishes)) as talk:
        talk.websocket.shutdown()
        ready.set()
        talk.turn()
        assert talk.output().endswith(b"4\r\npart\r\n0\r\n\r\n")
        assert logged(talk) == (200, 4)


def test_a_second_drain_changes_nothing():
    with talking(Application()) as talk:
        talk.accepted()
        talk.websocket.shutdown()
        talk.websocket.shutdown()
        assert codes(talk.output()) == [1012]


@pytest.mark.parametrize("accepted", [True, False])
def test_a_cancelled_application_ends_with_1012_or_503(accepted, caplog):
    """The end of the drain: the server logs it."""

    async def sleeps(receive, send):
        await asyncio.Event().wait()

    with talking(sending(*[ACCEPT][:accepted], after=sleeps)) as talk:
        talk.websocket.task.cancel()
        talk.turn()
        output = talk.output()
        if accepted:
            assert codes(output.partition(b"\r\n\r\n")[2]) == [1012]
            assert logged(talk) == (101, 0)
        else:
            assert output.startswith(b"HTTP/1.1 503 ")
            assert logged(talk) == (503, 0)
        assert talk.done == 1
    assert not caplog.records


def test_the_seconds_of_the_access_log_are_those_of_the_application():
    with talking(sending(ACCEPT)) as talk:
        [entry] = talk.entries
        assert 0 <= entry.seconds < 20


def test_without_an_access_log_nothing_is_logged():
    with talking(sending(ACCEPT), access_log=False) as talk:
        assert talk.ended
        assert talk.websocket.task.exception() is None
        assert talk.entries == []


def test_the_server_knows_the_connection_and_the_task_until_they_end():
    """For the drain, and for the number of connections."""
    with talking(Application()) as talk:
        talk.accepted()
        assert talk.connections == {talk.websocket}
        assert talk.tasks == {talk.websocket.task}
        talk.lose()
        assert talk.connections == set()
        assert talk.tasks == set()
        assert talk.lost == [talk.websocket]


def test_frames_of_the_server_are_well_formed():
    """The parser of the tests refuses what a client would."""
    with pytest.raises(AssertionError):
        parsed(frame(TEXT, b"masked"))
