"""Values that are kept out of the file."""

import pytest

from preforkd.config import sources
from preforkd.config.credentials import Credentials
from preforkd.errors import ConfigurationError

TEXT = """\
app:
  environment: {SECRET_KEY: {credential: key}, PLAIN: x}
control: {group: {credential: group}}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of credentials, as systemd makes it, and a file that names them."""
    (tmp_path / "f").write_text(TEXT)
    inner = tmp_path / "credentials"
    inner.mkdir()
    (inner / "key").write_text("geheim\n")
    (inner / "group").write_text("admin")
    return tmp_path


def test_a_credential_stands_for_its_value(folder):
    """In the application's environment and in any setting; it is read, and never shown."""
    loaded = sources.load(str(folder / "f"), {}, Credentials(str(folder / "credentials")))
    assert loaded.settings.app.environment == {"SECRET_KEY": "geheim", "PLAIN": "x"}
    assert loaded.settings.control.group == "admin"
    shown = " ".join(entry.value_text for entry in sources.effective(loaded))
    assert "SECRET_KEY=(credential) PLAIN=x" in shown
    assert "geheim" not in shown
    assert "admin" not in shown


def test_what_was_not_passed_is_said_with_its_place(folder):
    """The nearest name, all that were passed, or how to pass it."""
    (folder / "credentials/key").rename(folder / "credentials/keys")
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(folder / "f"), {}, Credentials(str(folder / "credentials")))
    assert "f:2:42: app.environment.SECRET_KEY: the credential key cannot be read" in str(
        caught.value
    )
    assert "did you mean keys?" in str(caught.value)
    with pytest.raises(ConfigurationError, match="pass key by LoadCredential=key:/path"):
        sources.load(str(folder / "f"), {}, Credentials(None))


def test_a_check_elsewhere_is_no_problem(folder):
    """Who checks a file by hand has no credentials, and need not."""
    loaded = sources.load(str(folder / "f"), {}, Credentials(None, checking=True))
    assert loaded.settings.app.environment == {"PLAIN": "x"}


@pytest.mark.parametrize("name", ["", "../etc/passwd", "a/b", ".", ".hidden"])
def test_only_names_are_names(folder, name):
    """No way out of the folder."""
    with pytest.raises(ValueError, match="not the name of a credential"):
        Credentials(str(folder)).read(name)


def test_a_credential_has_a_bound(folder):
    """An endless one is refused with its place."""
    key = folder / "credentials/key"
    key.unlink()
    key.symlink_to("/dev/zero")
    with pytest.raises(
        ConfigurationError, match=r"f:2:42: .*the credential key is larger than 1 MiB"
    ):
        sources.load(str(folder / "f"), {}, Credentials(str(folder / "credentials")))
