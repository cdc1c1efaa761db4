"""A worker's life, as far as it can be lived without a fork; the rest is proven with real processes."""

import sys

import pytest

from preforkd.config.settings import ListenSettings, Settings, TlsSettings
from preforkd.errors import ConfigurationError
from preforkd.worker import main
from tests.worker.certificate import CERTIFICATE, KEY

UNUSABLE = Settings(listen=[ListenSettings(tls=True)], tls=TlsSettings(certificate="/no/such.pem"))


@pytest.mark.parametrize("kind", ["stream", "wsgi", "asgi"])
def test_a_certificate_is_tried_before_the_first_fork(kind):
    """One that no worker could use is said once, by its setting; one that can be used is nothing to say."""
    with pytest.raises(ConfigurationError, match=r"tls\.certificate: /no/such\.pem"):
        main.preload(kind, UNUSABLE)
    usable = Settings(listen=UNUSABLE.listen, tls=TlsSettings(certificate=CERTIFICATE, key=KEY))
    main.preload(kind, usable)


def test_a_certificate_that_nobody_uses_is_not_read():
    """No listener speaks TLS."""
    main.preload("wsgi", Settings(tls=UNUSABLE.tls))


def test_what_can_be_done_without_is_not_demanded(monkeypatch):
    """A missing uvloop is no failure; what is there is imported nevertheless."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.delitem(sys.modules, "preforkd.worker.asgi.websocket", raising=False)
    main.preload("asgi", Settings())
    assert "preforkd.worker.asgi.websocket" in sys.modules
