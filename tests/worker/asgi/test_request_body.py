"""The body of a request until the application receives it."""

from preforkd.worker.asgi.request_body import RequestBody


def test_parts_are_joined_and_the_end_is_received_once():
    """What has arrived is one message; nothing is ready behind the end."""
    body = RequestBody(complete=False)
    assert not body.ready
    body.add(b"one")
    body.add(b"two")
    assert (body.ready, body.unread) == (True, 6)
    assert body.take() == {"type": "http.request", "body": b"onetwo", "more_body": True}
    assert (body.ready, body.unread, body.received) == (False, 0, False)
    body.add(b"three")
    body.complete = True
    assert body.take() == {"type": "http.request", "body": b"three", "more_body": False}
    assert (body.ready, body.received) == (False, True)


def test_an_empty_body_is_received():
    """A request without a body has one empty message."""
    body = RequestBody(complete=True)
    assert body.take() == {"type": "http.request", "body": b"", "more_body": False}
    assert not body.ready
