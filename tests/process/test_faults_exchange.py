"""Connections that wait between workers: what becomes of them when those workers are no more."""

import http.client
import socket

import pytest

from tests.process.faults import descriptors, get, serve, settle, whole_again


def left_between_workers(service):
    """Return a kept connection whose request waits, and the one that keeps the only worker busy."""
    kept, slow = (http.client.HTTPConnection(*service.address, timeout=30) for _ in range(2))
    kept.request("GET", "/?id=1")
    assert kept.getresponse().read()
    slow.request("GET", "/slow?for=60")
    service.until(lambda status: any(row["busy_seconds"] for row in status["workers"]))
    kept.request("GET", "/?id=2")
    # Its worker has given it away as soon as it has one connection only.
    service.until(lambda status: sum(row["connections"] for row in status["workers"]) == 1)
    return kept, slow


def test_a_waiting_request_goes_to_the_next_generation(service):
    """All workers of its generation are killed at the end of their time: the new ones answer it."""
    serve(service, workers=1, more="timeouts: {drain: 1s}\n")
    kept, slow = left_between_workers(service)
    assert service.control("reload", "--fresh").returncode == 0
    answer = kept.getresponse()
    assert answer.status == 200
    assert answer.read().startswith(b"id=2 ")
    # The request may be answered before the line is read here.
    taken = "generation 2 takes over 1 waiting requests of generation 1"
    service.until(lambda _: taken in service.log)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        slow.getresponse()
    kept.close()
    slow.close()


def test_a_generation_with_other_sockets_takes_nothing(service):
    """A request that waits for a socket which is not that of the new generation is cut off at once."""
    serve(service, workers=1, more="timeouts: {drain: 1s}\n")
    kept, slow = left_between_workers(service)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    service.listen = f"[127.0.0.1:{port}, {service.listen}]"
    settle(service, workers=1, more="timeouts: {drain: 1s}\n")
    assert service.control("reload").returncode == 0
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        kept.getresponse()
    kept.close()
    slow.close()
    assert get(service.address, "/?id=3")[0] == 200


def test_a_refused_reload_leaves_no_descriptor(service):
    """What a generation that never served was started with is given up with it."""
    serve(service)
    before = descriptors(service.pid)
    settle(service, variables={"BREAK": "raise"})
    for _ in range(3):
        assert service.control("reload").returncode == 69
    whole_again(service, 2, set())
    assert descriptors(service.pid) <= before
