"""Varlink, a server's half: what a call says, who deals with it, and what is answered.

A message is a JSON object with a zero byte behind it. https://varlink.org/Method-Call
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from preforkd.control.varlink import Answer, Error, Interface, Method

SERVICE = "org.varlink.service"
END = b"\0"


class MalformedError(Exception):
    """What a client said is no call; the text says why."""


class Identity(msgspec.Struct, frozen=True):
    """Who serves, as GetInfo tells."""

    vendor: str
    product: str
    version: str
    url: str


class Dispatcher:
    """The interfaces that a client may call; `SERVICE`, which tells of them, is one of them."""

    def __init__(self, identity: Identity, interfaces: Iterable[Interface]) -> None:
        self._identity = identity
        errors = InterfaceNotFound, MethodNotFound, InvalidParameter
        methods = (
            Method(GetInfo, Info, self._get_info),
            Method(GetInterfaceDescription, Description, self._get_description),
        )
        about = Interface(SERVICE, "What a service is and offers.", methods, errors)
        self._interfaces = {one.name: one for one in (about, *interfaces)}

    def call(self, message: bytes, send: Callable[[bytes], None]) -> None:
        """Deal with a message, without the zero byte; ``send`` gets what goes to the client, once.

        That is nothing (``b""``) where the client wants no answer. Raises MalformedError.
        """
        try:
            call = _decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedError(str(error)) from error

        def answer(parameters: msgspec.Struct) -> None:
            send(b"" if call.oneway else _encoded(parameters))

        name, _, method_name = call.method.rpartition(".")
        interface = self._interfaces.get(name)
        if interface is None:
            answer(InterfaceNotFound(name))
            return
        for method in interface.methods:
            if method.parameters.__name__ == method_name:
                break
        else:
            answer(MethodNotFound(call.method))
            return
        try:
            parameters = msgspec.convert(call.parameters or {}, method.parameters)
        except msgspec.ValidationError as error:
            answer(InvalidParameter(_invalid_parameter(error)))
            return
        method.perform(parameters, answer)

    def _get_info(self, _call: "GetInfo", answer: Answer) -> None:
        who = self._identity
        names = list(self._interfaces)
        answer(Info(who.vendor, who.product, who.version, who.url, names))

    def _get_description(self, call: "GetInterfaceDescription", answer: Answer) -> None:
        interface = self._interfaces.get(call.interface)
        if interface is None:
            answer(InterfaceNotFound(call.interface))
            return
        # Few ask, and a master that nobody asks does not have it in memory.
        from preforkd.control.introspection import description  # noqa: PLC0415

        answer(Description(description(interface)))


class _Call(msgspec.Struct):
    """A call as it arrives; ``more`` and ``upgrade`` ask for what no method here has."""

    method: str
    parameters: dict[str, Any] | None = None
    oneway: bool = False


_decoder = msgspec.json.Decoder(_Call)


def _encoded(parameters: msgspec.Struct) -> bytes:
    answer: dict[str, Any] = {"parameters": parameters}
    if isinstance(parameters, Error):
        answer = {"error": f"{parameters.interface_name}.{type(parameters).__name__}", **answer}
    try:
        return msgspec.json.encode(answer) + END
    except UnicodeEncodeError:
        # A path that is no UTF-8. json escapes it, and is loaded for that only.
        import json  # noqa: PLC0415

        return json.dumps(msgspec.to_builtins(answer)).encode() + END


def _invalid_parameter(error: msgspec.ValidationError) -> str:
    # Its text ends with a name, or with a path that begins with $ and leads through it.
    path = str(error).split("`")[-2].removeprefix("$.")
    return path.partition("[")[0].partition(".")[0]


# --- org.varlink.service -------------------------------------------------------------------------


class GetInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Return who serves, and which interfaces."""


class Info(msgspec.Struct, frozen=True):
    """The answer to GetInfo."""

    vendor: str
    product: str
    version: str
    url: str
    interfaces: list[str]


class GetInterfaceDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Return the description of an interface."""

    interface: str


class Description(msgspec.Struct, frozen=True):
    """The answer to GetInterfaceDescription."""

    description: str


class InterfaceNotFound(Error, frozen=True):
    """There is no such interface."""

    interface_name = SERVICE
    interface: str


class MethodNotFound(Error, frozen=True):
    """The interface has no such method."""

    interface_name = SERVICE
    method: str


class InvalidParameter(Error, frozen=True):
    """A parameter is missing, unknown, or of another type."""

    interface_name = SERVICE
    parameter: str
