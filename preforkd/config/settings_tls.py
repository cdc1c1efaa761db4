"""The section tls: certificates, and what is required of clients."""

from typing import Annotated, Literal

from msgspec import Struct

from preforkd.config.declaration import GENERATION, declare


class TlsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS of listeners with ``tls: true``. Files are read again by each generation of workers."""

    certificate: Annotated[
        str,
        declare(
            "Path of the certificate with its chain, in PEM format; or {credential: NAME}.",
            GENERATION,
        ),
    ] = ""
    key: Annotated[
        str,
        declare(
            "Path of the private key, in PEM format; or {credential: NAME}. Empty: the key is in the "
            "certificate's file.",
            GENERATION,
        ),
    ] = ""
    key_password: Annotated[
        str,
        declare(
            "Password of the private keys, as {credential: NAME}. Empty: they are not encrypted.",
            GENERATION,
        ),
    ] = ""
    certificates: Annotated[
        dict[str, str],
        declare(
            "Certificates of further hosts, for example {shop.example: /etc/ssl/shop.pem}; a name like "
            "*.shop.example stands for each host one level below. Each file, or {credential: NAME}, has the "
            "certificate with its chain and its key. A client that requests another host, or none (SNI), "
            "gets tls.certificate.",
            GENERATION,
        ),
    ] = {}
    client_ca: Annotated[
        str,
        declare(
            "Path of the certificates, in PEM format, of the authorities that sign the certificates of "
            "clients; or {credential: NAME}.",
            GENERATION,
        ),
    ] = ""
    verify: Annotated[
        Literal["off", "optional", "required"],
        declare(
            "Whether a client has to have a certificate that one of tls.client_ca has signed. optional: it "
            "may have none, but no other. off: it is not asked for one.",
            GENERATION,
        ),
    ] = "off"
    minimum_version: Annotated[
        Literal["1.2", "1.3"],
        declare("Lowest version of TLS that is spoken.", GENERATION),
    ] = "1.2"
    ciphers: Annotated[
        str,
        declare(
            "Ciphers of TLS 1.2, as openssl-ciphers(1) describes the list; those of TLS 1.3 are fixed. "
            "Empty: those of Python's ssl module.",
            GENERATION,
        ),
    ] = ""
