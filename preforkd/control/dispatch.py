"""The server's side of Varlink: decode a call, find its method, check its parameters, encode the answer.

A message is a JSON object followed by a zero byte. https://varlink.org/Method-Call
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from preforkd.control.varlink import Answer, Error, Interface, Method

SERVICE = "org.varlink.service"
END = b"\0"


class MalformedError(Exception):
    """A message is no Varlink call; the text gives the reason."""


class Identity(msgspec.Struct, frozen=True):
    """The service, as GetInfo describes it."""

    vendor: str
    product: str
    version: str
    url: str


class Dispatcher:
    """The interfaces that a client may call, among them `SERVICE`, which describes them."""

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
        """Process a message (without the zero byte); call ``send`` once with the encoded answer.

        The answer is empty (``b""``) if the call is oneway. Raises MalformedError.
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
        identity = self._identity
        names = list(self._interfaces)
        answer(Info(identity.vendor, identity.product, identity.version, identity.url, names))

    def _get_description(self, call: "GetInterfaceDescription", answer: Answer) -> None:
        interface = self._interfaces.get(call.interface)
        if interface is None:
            answer(InterfaceNotFound(call.interface))
            return
        # Imported on demand, because it is rarely needed and costs the master memory.
        from preforkd.control.introspection import description  # noqa: PLC0415

        answer(Description(description(interface)))


class _Call(msgspec.Struct):
    """A call; ``more`` and ``upgrade`` are ignored, since no method here supports them."""

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
        # A path that is not UTF-8. json escapes it, and is loaded only for that.
        import json  # noqa: PLC0415

        return json.dumps(msgspec.to_builtins(answer)).encode() + END


def _invalid_parameter(error: msgspec.ValidationError) -> str:
    # The text ends with the name, or with a path from $ that contains it.
    path = str(error).split("`")[-2].removeprefix("$.")
    return path.partition("[")[0].partition(".")[0]


# --- org.varlink.service -------------------------------------------------------------------------


class GetInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Return the service's identity, and its interfaces."""


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
