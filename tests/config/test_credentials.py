"""Values that are read from credentials of systemd."""

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
    with pytest.raises(ConfigurationError, match="add LoadCredential=key:/path to the unit"):
        sources.load(str(folder / "f"), {}, Credentials(None))


def test_a_check_elsewhere_is_no_problem(folder):
    """An administrator who checks a file has no credentials, and needs none."""
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


UNFIT = [
    "limits: {requests: {credential: key}}",
    "workers: {credential: key}",
    "workers: {min: {credential: number}, max: 2}",
    "timeouts: {drain: {credential: key}}",
    "access_log: {format: {credential: key}}",
    "proxy: {trusted: [127.0.0.1, {credential: key}]}",
    "app: {target: {credential: key}}",
    "app: {target: 'wsgi:a:b', warm_up: [{credential: key}]}",
    "http: {healthy: {credential: key}}",
    "listen: [{address: {credential: key}}]",
    "listen: [{address: {credential: address}}]",
    "listen: [{address: {credential: twice}}, {address: {credential: twice}}]",
    "listen: [{name: {credential: key}}, {name: {credential: key}}]",
    "log: {level: {credential: near}}",
]


@pytest.mark.parametrize("text", UNFIT)
def test_no_problem_shows_the_value(tmp_path, text):
    """Of whatever setting: neither whole, nor a part, nor what it is near to."""
    values = {
        "key": "s3cr3t phrase",
        "number": "4711",
        "address": "127.0.0.1:s3cr3t",
        "twice": "127.0.0.1:4711",
        "near": "warnin",
    }
    for name, value in values.items():
        (tmp_path / name).write_text(value)
    (tmp_path / "f").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(tmp_path / "f"), {}, Credentials(str(tmp_path)))
    report = caught.value.report()
    assert f"{tmp_path}/f:1:" in report
    assert not any(part in report for part in ("s3cr3t", "phrase", "4711", "warning?", "warnin'"))


def test_the_settings_in_force_do_not_show_listeners_from_credentials(tmp_path):
    """An address, or a name, that a credential holds."""
    (tmp_path / "key").write_text("127.0.0.1:4711")
    (tmp_path / "f").write_text("listen: [{address: {credential: key}}, {name: {credential: key}}]")
    loaded = sources.load(str(tmp_path / "f"), {}, Credentials(str(tmp_path)))
    (listen,) = (entry for entry in sources.effective(loaded) if entry.setting == "listen")
    assert listen.value_text == "(credential), (credential)"
    assert loaded.secret_texts == ("127.0.0.1:4711",)


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"\na ", "\na "), (b"", "")],
)
def test_a_final_newline_is_not_part_of_the_value(tmp_path, data, text):
    """An editor, or echo, has added it; everything else is."""
    (tmp_path / "key").write_bytes(data)
    assert Credentials(str(tmp_path)).read("key") == text


def test_the_largest_credential(tmp_path):
    """1 MiB is read, a byte more is refused."""
    (tmp_path / "key").write_bytes(b"x" * (1 << 20))
    assert len(Credentials(str(tmp_path)).read("key")) == 1 << 20
    (tmp_path / "key").write_bytes(b"x" * (1 << 20) + b"x")
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        Credentials(str(tmp_path)).read("key")


def test_a_credential_that_is_not_text_is_refused_and_not_shown(tmp_path):
    """The error has its name only."""
    (tmp_path / "key").write_bytes(b"s3cr3t\xff")
    with pytest.raises(ValueError, match="key is not UTF-8 text") as caught:
        Credentials(str(tmp_path)).read("key")
    assert "s3cr3t" not in str(caught.value)


def test_a_removed_directory_has_no_credentials(tmp_path):
    """The error lists what was passed: nothing, or everything where no name is near."""
    with pytest.raises(ValueError, match="passed: none"):
        Credentials(str(tmp_path / "gone")).read("key")
    (tmp_path / "zebra").touch()
    (tmp_path / "other").touch()
    with pytest.raises(ValueError, match="passed: other, zebra"):
        Credentials(str(tmp_path)).read("key")


def test_a_check_with_credentials_reads_them(tmp_path):
    """Their absence is no problem only if there is no directory of credentials."""
    with pytest.raises(ValueError, match="cannot be read"):
        Credentials(str(tmp_path), checking=True).read("key")
    assert Credentials(None, checking=True).read("key") is None
