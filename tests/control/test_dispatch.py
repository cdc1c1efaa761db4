"""Varlink: what calls say, and what is answered."""

import json
import os

import msgspec
import pytest

from preforkd.control.dispatch import Dispatcher, Identity, MalformedError, _encoded
from preforkd.control.varlink import Error, Interface, Method


class Add(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Add numbers."""

    numbers: list[int]
    plus: int | None = None


class Sum(msgspec.Struct, frozen=True):
    """The answer to Add."""

    total: int


class Overflow(Error, frozen=True):
    """It is too much."""

    interface_name = "test.Sums"
    limit: int


@pytest.fixture
def service():
    """A service with one method, that answers when it may, if it is `lazy`."""

    def add(call, answer):
        total = sum(call.numbers) + (call.plus or 0)
        waiting.append(lambda: answer(Sum(total) if total < 100 else Overflow(99)))
        if not service.lazy:
            waiting.pop()()

    waiting = []
    methods = (Method(Add, Sum, add),)
    interface = Interface("test.Sums", "Sums.", methods, (Overflow,))
    service = Dispatcher(Identity("v", "p", "1.2", "https://example"), [interface])
    service.lazy, service.waiting = False, waiting
    return service


def ask(service, text, *, raw=False):
    """Return what is sent for a call: the whole of it, once, as one message."""
    sent = []
    service.call(text if raw else json.dumps(text).encode(), sent.append)
    (answer,) = sent
    if not answer:
        return None
    assert answer.endswith(b"\0")
    assert answer.count(b"\0") == 1
    return json.loads(answer[:-1])


def test_a_call_and_its_answer(service):
    """Parameters go in and out by name; those that may be left out may be null, too."""
    for plus, total in (({}, 3), ({"plus": None}, 3), ({"plus": 4}, 7)):
        call = {"method": "test.Sums.Add", "parameters": {"numbers": [1, 2], **plus}}
        assert ask(service, call) == {"parameters": {"total": total}}


def test_an_error_has_a_name_and_parameters(service):
    """As the interface declares it."""
    call = {"method": "test.Sums.Add", "parameters": {"numbers": [100]}}
    assert ask(service, call) == {"error": "test.Sums.Overflow", "parameters": {"limit": 99}}


def test_an_answer_may_come_later(service):
    """Nothing is sent before."""
    service.lazy, sent = True, []
    service.call(b'{"method": "test.Sums.Add", "parameters": {"numbers": []}}', sent.append)
    assert sent == []
    service.waiting.pop()()
    assert sent == [b'{"parameters":{"total":0}}\0']


def test_who_wants_no_answer_gets_none(service):
    """The call is done, and its end is told; also where it fails."""
    for method in ("test.Sums.Add", "test.Sums.Nothing", "nobody.Here"):
        call = {"method": method, "parameters": {"numbers": [1]}, "oneway": True}
        assert ask(service, call) is None


@pytest.mark.parametrize(
    ("call", "error", "parameters"),
    [
        ({"method": "nobody.Here"}, "InterfaceNotFound", {"interface": "nobody"}),
        ({"method": "Add"}, "InterfaceNotFound", {"interface": ""}),
        ({"method": "test.Sums.Less"}, "MethodNotFound", {"method": "test.Sums.Less"}),
        ({"method": "test.Sums.__init__"}, "MethodNotFound", {"method": "test.Sums.__init__"}),
        ({"method": "test.Sums.Add"}, "InvalidParameter", {"parameter": "numbers"}),
        (
            {"method": "test.Sums.Add", "parameters": {"numbers": ["1"]}},
            "InvalidParameter",
            {"parameter": "numbers"},
        ),
        (
            {"method": "test.Sums.Add", "parameters": {"numbers": [], "plus": True}},
            "InvalidParameter",
            {"parameter": "plus"},
        ),
        (
            {"method": "test.Sums.Add", "parameters": {"numbers": [], "minus": 1}},
            "InvalidParameter",
            {"parameter": "minus"},
        ),
        (
            {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {}},
            "InvalidParameter",
            {"parameter": "interface"},
        ),
    ],
)
def test_what_is_wrong_with_a_call_is_said(service, call, error, parameters):
    """By the standard's errors, with the name of what is not there or not right."""
    expected = {"error": f"org.varlink.service.{error}", "parameters": parameters}
    assert ask(service, call) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b'{"method": 3}',
        b'{"parameters": {}}',
        b'{"method": "test.Sums.Add", "parameters": [1]}',
        b'{"method": "test.Sums.Add", "oneway": 1}',
        b'{"method": "\xff"}',
        b'{"method": "x"} {"method": "x"}',
        b'{"method": "test.Sums.Add", "parameters": {"numbers": ' + b"[" * 30000,
    ],
)
def test_what_is_no_call_is_told_from_one(service, text):
    """Whatever it is; nothing is sent for it."""
    with pytest.raises(MalformedError):
        service.call(text, pytest.fail)


def test_it_says_who_serves_and_what(service):
    """GetInfo, and GetInterfaceDescription for each interface that it names."""
    info = ask(service, {"method": "org.varlink.service.GetInfo"})["parameters"]
    assert info == {
        "vendor": "v",
        "product": "p",
        "version": "1.2",
        "url": "https://example",
        "interfaces": ["org.varlink.service", "test.Sums"],
    }
    method = "org.varlink.service.GetInterfaceDescription"
    for name in info["interfaces"]:
        answer = ask(service, {"method": method, "parameters": {"interface": name}})
        assert f"interface {name}\n" in answer["parameters"]["description"]
    answer = ask(service, {"method": method, "parameters": {"interface": "nobody"}})
    assert answer["parameters"] == {"interface": "nobody"}


class Named(msgspec.Struct, frozen=True):
    """An answer with a text."""

    name: str


def test_an_answer_with_what_is_no_utf8_is_sent():
    """A name of a socket or a file may have such bytes: escaped, and the client reads the same text."""
    wrong = os.fsdecode(b"/caf\xe9")
    assert json.loads(_encoded(Named(wrong))[:-1]) == {"parameters": {"name": wrong}}
