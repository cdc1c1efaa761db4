"""TLS: certificates as they are found, and a socket that never blocks."""

import contextlib
import os
import socket
import ssl

import pytest

from preforkd.config.settings import ListenSettings, Settings, TlsSettings
from preforkd.errors import ConfigurationError
from preforkd.worker import tls
from tests.worker.certificate import (
    CERTIFICATE,
    CLIENT_CA,
    CLIENT_CERTIFICATE,
    CLIENT_KEY,
    ENCRYPTED_KEY,
    KEY,
    OTHER_CERTIFICATE,
    OTHER_KEY,
    PASSWORD,
    SHOP_CERTIFICATE,
    SHOP_KEY,
)
from tests.worker.serving import read_all, serving


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("/nowhere.pem", "", "tls.certificate: /nowhere.pem: No such file"),
        (CERTIFICATE, "/nowhere.key", "tls.key: /nowhere.key: No such file"),
        (CERTIFICATE, "", "tls.certificate: certificate and key cannot be used"),
        ("-----BEGIN NONSENSE", KEY, "tls.certificate: certificate and key cannot be used"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(certificate, key, said):
    """With the setting, before anything is served."""
    with pytest.raises(ConfigurationError, match=said):
        tls.server_context(TlsSettings(certificate=certificate, key=key))


def test_only_a_regular_file_is_read(tmp_path):
    """A FIFO would be waited for, a device has no end: neither is opened to be read."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ConfigurationError, match=r"tls.certificate: .*/fifo: not a regular file"):
        tls.server_context(TlsSettings(certificate=str(fifo)))
    with pytest.raises(ConfigurationError, match=r"tls.key: /dev/zero: not a regular file"):
        tls.server_context(TlsSettings(certificate=CERTIFICATE, key="/dev/zero"))
    with pytest.raises(ConfigurationError, match="not a regular file"):
        tls.server_context(TlsSettings(certificate=str(tmp_path)))


def test_what_cannot_be_used_is_named_by_its_file(tmp_path):
    """Both where there are two; the text of a credential is in no message."""
    for name, text in (("c.pem", CERTIFICATE), ("k.pem", "no key")):
        (tmp_path / name).write_text(text)
    certificate, key = str(tmp_path / "c.pem"), str(tmp_path / "k.pem")
    with pytest.raises(ConfigurationError) as caught:
        tls.server_context(TlsSettings(certificate=certificate, key=key))
    assert f"({certificate} and {key})" in caught.value.message
    with pytest.raises(ConfigurationError) as caught:
        tls.server_context(TlsSettings(certificate=certificate))
    assert f"({certificate})" in caught.value.message
    with pytest.raises(ConfigurationError) as caught:
        tls.server_context(TlsSettings(certificate=CERTIFICATE, key="-----BEGIN NONSENSE"))
    assert "(a credential)" in caught.value.message


@pytest.mark.parametrize(
    ("changed", "said", "hint"),
    [
        (
            {"key": ENCRYPTED_KEY},
            "tls.key: the key is encrypted (a credential)",
            "set tls.key_password to {credential: NAME}",
        ),
        (
            {"certificate": CERTIFICATE + ENCRYPTED_KEY, "key": ""},
            "tls.certificate: the key is encrypted (a credential)",
            "set tls.key_password to {credential: NAME}",
        ),
        (
            {"key": ENCRYPTED_KEY, "key_password": "wrong"},
            "tls.key_password: the key cannot be decrypted with it (a credential)",
            "the password of this key",
        ),
        (
            {"certificate": OTHER_CERTIFICATE, "key": ENCRYPTED_KEY, "key_password": PASSWORD},
            "tls.certificate: certificate and key cannot be used (a credential): KEY_VALUES_MISMATCH",
            "a PEM file",
        ),
        (
            {"certificates": {"Shop.example": SHOP_CERTIFICATE}},
            "tls.certificates.Shop.example: certificate and key cannot be used (a credential)",
            "a PEM file",
        ),
        (
            {"certificates": {"a.example": "/nowhere"}},
            "tls.certificates.a.example: /nowhere: No such file",
            "a PEM file",
        ),
        (
            {"client_ca": "/nowhere", "verify": "required"},
            "tls.client_ca: /nowhere: No such file",
            "a PEM file",
        ),
        (
            {"client_ca": KEY, "verify": "required"},
            "tls.client_ca: it has no certificate (a credential)",
            "a PEM file",
        ),
        (
            {"ciphers": "none-such"},
            "tls.ciphers: 'none-such' names no cipher of TLS 1.2",
            "a list as in openssl-ciphers(1)",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(changed, said, hint):
    """Each error names the setting, the file, and what to do; the text of a credential is in no message."""
    with pytest.raises(ConfigurationError) as caught:
        tls.server_context(TlsSettings(**{"certificate": CERTIFICATE, "key": KEY, **changed}))
    assert said in caught.value.message
    assert caught.value.problems[0].hint.startswith(hint)
    assert "BEGIN" not in str(caught.value)


@pytest.fixture
def ends():
    """Our end, not yet shaken hands on, and the client's, over a socket pair."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    made = ssl.create_default_context(cadata=CERTIFICATE)
    client = made.wrap_socket(theirs, server_hostname="localhost", do_handshake_on_connect=False)
    server = tls.TlsSocket(ours, tls.server_context(TlsSettings(certificate=CERTIFICATE, key=KEY)))
    yield server, client
    server.close()
    client.close()


def shake_hands(server, client):
    """Let both make their steps in turn until both have done."""
    client.setblocking(False)
    done = [False, False]
    while not all(done):
        done[0] = done[0] or server.handshake()
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            continue
        done[1] = True
    client.settimeout(20)


def test_a_handshake_goes_step_by_step(ends):
    """No step waits for the client; nothing is read before it is done."""
    server, client = ends
    assert not server.handshake()
    assert not server.wants_write
    shake_hands(server, client)
    with pytest.raises(BlockingIOError):
        server.recv(10)
    client.sendall(b"hello")
    assert server.recv(3) == b"hel"
    assert server.has_decrypted()
    assert server.recv(10) == b"lo"
    assert not server.has_decrypted()
    assert server.send(b"bye") == 3
    assert client.recv(10) == b"bye"


def test_a_client_that_reads_nothing_blocks_nobody(ends):
    """What there is no room for is to be sent later."""
    server, client = ends
    shake_hands(server, client)
    sent = 0
    try:
        while sent < 1 << 30:
            sent += server.send(b"x" * 65536)
    except BlockingIOError:
        return
    raise AssertionError(f"{sent} bytes found room in a socket")


def test_the_end_is_said(ends):
    """A goodbye before the end, so that a client knows that nothing was cut off; one without is an end, too."""
    server, client = ends
    shake_hands(server, client)
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""  # and no SSLEOFError
    client.close()
    assert server.recv(1) == b""


def test_a_socket_that_is_closed_says_so_first(ends):
    """The client is not left with a connection that looks cut off."""
    server, client = ends
    shake_hands(server, client)
    server.close()
    assert client.recv(1) == b""  # and no SSLEOFError


def test_an_abandoned_copy_says_nothing(ends):
    """In a process that was forked from the worker: the connection is its parent's, and goes on there."""
    server, client = ends
    shake_hands(server, client)
    parents = os.dup(server.fileno())
    try:
        server.close_after_fork()
        client.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            client.recv(1)
    finally:
        os.close(parents)


def test_records_are_not_kept_for_further_ones():
    """Nagle's algorithm would delay the second record of an answer until the client's acknowledgement."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
    secure = tls.TlsSocket(sock, tls.server_context(TlsSettings(**OURS)))
    assert secure.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    secure.close()
    client.close()


# --- what a client is shown, and what it has to show -----------------------------------------------


def client_context(*, own="", ciphers="DEFAULT", **more):
    """Return the context of a client that trusts all certificates of the tests; ``own`` is its certificate."""
    made = ssl.create_default_context(cadata=CERTIFICATE + OTHER_CERTIFICATE + SHOP_CERTIFICATE)
    made.set_ciphers(ciphers)
    for name, value in more.items():
        setattr(made, name, value)
    if own:
        with tls._as_path("", own) as path:
            made.load_cert_chain(path)
    return made


@contextlib.contextmanager
def met(settings, client, host="localhost"):
    """Let a client meet a server with these settings; yield both ends. Raises ssl.SSLError of the server."""
    ours, theirs = socket.socketpair()
    far = client.wrap_socket(theirs, server_hostname=host, do_handshake_on_connect=False)
    near = tls.TlsSocket(ours, tls.server_context(settings))
    try:
        shake_hands(near, far)
        yield near, far
    finally:
        near.close()
        far.close()


WITH_HOSTS = TlsSettings(
    certificate=CERTIFICATE,
    key=KEY,
    certificates={
        "Shop.Example": SHOP_CERTIFICATE + SHOP_KEY,
        "*.shop.example": SHOP_CERTIFICATE + SHOP_KEY,
    },
)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("localhost", CERTIFICATE),
        ("shop.example", SHOP_CERTIFICATE),
        ("SHOP.example", SHOP_CERTIFICATE),
        ("www.shop.example", SHOP_CERTIFICATE),
        ("a.b.shop.example", CERTIFICATE),
        ("example", CERTIFICATE),
        (None, CERTIFICATE),
    ],
)
def test_the_requested_host_decides_which_certificate_is_shown(host, shown):
    """In any case of the letters; a wildcard stands for one level; for other hosts it is tls.certificate."""
    client = client_context(check_hostname=False)
    with met(WITH_HOSTS, client, host) as (_, far):
        assert ssl.DER_cert_to_PEM_cert(far.getpeercert(True)) == shown


OURS = {"certificate": CERTIFICATE, "key": KEY}
MUTUAL = {**OURS, "client_ca": CLIENT_CA}
CLIENT = CLIENT_CERTIFICATE + CLIENT_KEY
NAME = "CN=J\\C3\\BCrgen #1\\ ,UID=u1+OU=Web,O=Example\\, Inc.,C=DE"
"""Of this client."""
STRANGER = OTHER_CERTIFICATE + OTHER_KEY
OLD = {
    "minimum_version": ssl.TLSVersion.TLSv1,
    "maximum_version": ssl.TLSVersion.TLSv1_1,
    "ciphers": "DEFAULT@SECLEVEL=0",  # OpenSSL offers the old versions no longer by itself
}
NOT_NEW = {"maximum_version": ssl.TLSVersion.TLSv1_2}


@pytest.mark.parametrize("host", ["localhost", "shop.example"])
@pytest.mark.parametrize(
    ("settings", "client", "reason"),
    [
        ({**MUTUAL, "verify": "required"}, {}, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        ({**MUTUAL, "verify": "required"}, {"own": STRANGER}, "CERTIFICATE_VERIFY_FAILED"),
        ({**MUTUAL, "verify": "optional"}, {"own": STRANGER}, "CERTIFICATE_VERIFY_FAILED"),
        (OURS, OLD, "UNSUPPORTED_PROTOCOL"),
        ({**OURS, "minimum_version": "1.3"}, NOT_NEW, "UNSUPPORTED_PROTOCOL"),
        ({**OURS, "ciphers": "AES256"}, {**NOT_NEW, "ciphers": "AES128"}, "NO_SHARED_CIPHER"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_client_that_does_not_fulfil_the_settings_is_refused(settings, client, reason, host):
    """Whichever host it requests: each setting applies to every certificate."""
    settings = TlsSettings(**settings, certificates=WITH_HOSTS.certificates)
    ends = met(settings, client_context(**client), host)
    with pytest.raises(ssl.SSLError) as caught, ends:
        pass
    assert caught.value.reason == reason


@pytest.mark.parametrize("host", ["localhost", "shop.example"])
@pytest.mark.parametrize("verify", ["optional", "required"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_facts_of_a_client_with_a_certificate(verify, version, host):
    """Its name as nginx and mod_ssl give it: last part first, special characters escaped, in ASCII."""
    settings = TlsSettings(**MUTUAL, verify=verify, certificates=WITH_HOSTS.certificates)
    with met(settings, client_context(own=CLIENT, maximum_version=version), host) as (near, far):
        facts = tls.client_facts(near.socket)
        cipher = far.cipher()[0]
    environ = facts.environ()
    assert environ == {
        "SSL_PROTOCOL": "TLSv1.2" if version is ssl.TLSVersion.TLSv1_2 else "TLSv1.3",
        "SSL_CIPHER": cipher,
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_S_DN": NAME,
        "SSL_CLIENT_I_DN": "CN=Client CA,O=Example",
        "SSL_CLIENT_M_SERIAL": "1A2B",
        "SSL_CLIENT_CERT": CLIENT_CERTIFICATE,
    }
    extension = facts.extension()
    suite = extension.pop("cipher_suite")
    assert suite in {0xC02B, 0xC02C, 0xCCA9, 0x1301, 0x1302, 0x1303}
    assert extension == {
        "server_cert": None,
        "client_cert_chain": [CLIENT_CERTIFICATE],
        "client_cert_name": NAME,
        "client_cert_error": None,
        "tls_version": 0x0303 if version is ssl.TLSVersion.TLSv1_2 else 0x0304,
    }


@pytest.mark.parametrize("settings", [OURS, {**MUTUAL, "verify": "optional"}])
def test_the_facts_of_a_client_without_a_certificate(settings):
    """No name, and the verification says NONE; a certificate that was not asked for is not looked at."""
    own = CLIENT if settings is OURS else ""
    with met(TlsSettings(**settings), client_context(own=own)) as (near, far):
        facts = tls.client_facts(near.socket)
        cipher = far.cipher()[0]
    assert facts.environ() == {
        "SSL_PROTOCOL": "TLSv1.3",
        "SSL_CIPHER": cipher,
        "SSL_CLIENT_VERIFY": "NONE",
    }
    assert facts.extension()["client_cert_chain"] == []
    assert facts.extension()["client_cert_name"] is None


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ('a,O=b+c;d<e>"f"\\', 'a\\,O=b\\+c\\;d\\<e\\>\\"f\\"\\\\'),
        (" # ", "\\ #\\ "),
        ("#a", "\\#a"),
        ("a\nb\0", "a\\0Ab\\00"),
        ("ü", "\\C3\\BC"),
    ],
)
def test_a_value_cannot_pose_as_a_name(value, escaped):
    """RFC 4514, section 2.4: nobody's common name may look like an organization."""
    assert tls._distinguished_name(((("commonName", value),),)) == f"CN={escaped}"


def test_attributes_have_the_names_of_the_rfc():
    """RFC 4514, section 3; others keep the one of OpenSSL."""
    long = (
        "commonName localityName stateOrProvinceName organizationName organizationalUnitName "
        "countryName streetAddress domainComponent userId emailAddress"
    )
    name = tuple(((one, "x"),) for one in reversed(long.split()))
    short = "CN=x,L=x,ST=x,O=x,OU=x,C=x,STREET=x,DC=x,UID=x,emailAddress=x"
    assert tls._distinguished_name(name) == short


def test_an_encrypted_key_is_used_with_its_password():
    """For the certificates of further hosts as well."""
    settings = TlsSettings(
        certificate=CERTIFICATE,
        key=ENCRYPTED_KEY,
        key_password=PASSWORD,
        certificates={"localhost": CERTIFICATE + ENCRYPTED_KEY},
    )
    with met(settings, client_context()) as (_, far):
        assert far.version() == "TLSv1.3"


# --- the same over each kind -----------------------------------------------------------------------


def answer_wsgi(environ, start_response):
    start_response("200 OK", [])
    return [environ["SSL_CLIENT_S_DN"].encode("latin-1")]


async def answer_asgi(scope, _receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    name = scope["extensions"]["tls"]["client_cert_name"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": name})


def answer_stream(connection, _peer):
    connection.recv(100)
    connection.sendall(tls.client_facts(connection).subject.encode())


APPLICATIONS = {"wsgi": answer_wsgi, "asgi": answer_asgi, "stream": answer_stream}


def answer_of(worker, client, host):
    """Return what a client gets for a request; an error of TLS, or the connection's end, is b""."""
    try:
        with client.wrap_socket(worker.connect(), server_hostname=host) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            return read_all(sock)
    except OSError:
        return b""


@pytest.mark.parametrize("kind", APPLICATIONS)
def test_every_kind_serves_and_refuses_the_same_clients(kind, caplog):
    """With a certificate that the authority has signed, by the requested host; others do not reach it."""
    whole = Settings(
        listen=(ListenSettings(name="test", tls=True),),
        tls=TlsSettings(
            certificate=CERTIFICATE,
            key=ENCRYPTED_KEY,
            key_password=PASSWORD,
            certificates={"shop.example": SHOP_CERTIFICATE + SHOP_KEY},
            client_ca=CLIENT_CA,
            verify="required",
            minimum_version="1.3",
        ),
    )
    with serving(APPLICATIONS[kind], kind=kind, whole=whole) as worker:
        for client in (
            client_context(),
            client_context(own=STRANGER),
            client_context(own=CLIENT, maximum_version=ssl.TLSVersion.TLSv1_2),
        ):
            assert answer_of(worker, client, "localhost") == b""
        for host in ("localhost", "shop.example"):
            assert answer_of(worker, client_context(own=CLIENT), host).count(NAME.encode()) == 1
    assert not caplog.records
