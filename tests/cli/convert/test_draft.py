"""What a conversion has found, and how it is written."""

import pytest

from preforkd.cli.convert.draft import Draft, variables
from preforkd.config import sources


def read(text, tmp_path):
    """Return the settings of a file with this text. Raises ConfigurationError."""
    path = tmp_path / "preforkd.yaml"
    path.write_text(text)
    return sources.load(str(path), {}).settings


@pytest.mark.parametrize(
    "value",
    [
        "null",
        "~",
        "on",
        "1:2",
        "a: b",
        "#x",
        "{a}",
        "-",
        "'",
        '"',
        "ä",
        "x\ny",
        "%",
        "*",
        "a ",
        "\x7f",
        "!x",
    ],
)
def test_each_text_is_read_as_it_was(value, tmp_path):
    """Whatever YAML would make of it."""
    draft = Draft("s")
    draft.set("app.environment", {"A": value})
    assert read(draft.write_settings(), tmp_path).app.environment == {"A": value}


def test_settings_stand_in_their_order_below_their_comments(tmp_path):
    """As in etc/preforkd.yaml; notes and what is needless come last."""
    draft = Draft("s")
    draft.set("memory.refork.after", 100)
    draft.set("workers.count", 3, "why")
    draft.listen = [{"address": ":80"}]
    draft.note("x", "do y")
    draft.note("x", "do y")
    draft.needless = ["z"]
    assert draft.write_settings() == (
        "# Converted from s. Read the comments, then run preforkd check.\n\n"
        'listen: ":80"\n'
        "workers:\n  # why\n  count: 3\n"
        "memory:\n  refork:\n    after: 100\n"
        "\n# What has no equal here, or needs a decision:\n# - x: do y\n\n# Not needed: z.\n"
    )
    assert read(draft.write_settings(), tmp_path).memory.refork.after == 100


def test_what_the_reader_refuses_becomes_a_note(tmp_path):
    """A value out of range, one that contradicts another, an entry of listen, one of its keys."""
    draft = Draft("s")
    draft.set("app.target", "wsgi:a:b")
    draft.set("app.environment", {"A-B": "1"})
    draft.set("workers.threads", 9999)
    draft.set("tls.key", "/k")
    draft.listen = [{"address": "a b:1"}, {"address": ":2", "tls": True}]
    settings = read(draft.write_settings(), tmp_path)
    assert [entry.address for entry in settings.listen] == [":2"]
    refused = {option for option, _ in draft.notes}
    assert {"workers.threads", "tls.key", "listen[0]", "listen[0].tls"} <= refused
    assert dict(draft.notes)["workers.threads"].startswith("9999 is not possible: ")


def test_the_unit(tmp_path):
    """A drop-in, also if there is nothing to set."""
    draft = Draft("s\n[Unit]")
    assert draft.write_unit().splitlines()[-1].startswith("# Nothing")
    draft.unit["User"] = "a\nExecStart=b"
    assert [line for line in draft.write_unit().splitlines() if line[0] != "#"] == [
        "[Service]",
        "User=a\\nExecStart=b",
    ]


def test_the_comment_on_variables():
    """It names them; none has no comment."""
    assert variables(()) == ""
    assert variables(("A", "B")).startswith("the default of $A and $B")
