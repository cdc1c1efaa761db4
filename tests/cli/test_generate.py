"""The derived files match their declarations."""

import json
from pathlib import Path

import pytest

import preforkd
from preforkd.cli import generate
from preforkd.config import sources
from preforkd.config.fields import leaves
from preforkd.config.settings import Settings
from preforkd.errors import (
    EXIT_STATUSES,
    ApplicationError,
    ConfigurationError,
    ExitStatus,
    InternalError,
    SystemFailure,
)

ROOT = Path(preforkd.__file__).resolve().parent.parent


def test_the_derived_files_are_fresh():
    """Each is what `python -m preforkd.cli.generate` writes."""
    derived = generate.derived()
    assert len(derived) == 7
    for path, text in derived.items():
        assert (ROOT / path).read_text() == text, path


def test_a_section_is_replaced_between_its_marks():
    """What stands before and behind it stays; without a mark nothing is written."""
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert generate._with_section(text, "<!-- {} -->", "x", "new\n") == text.replace("old", "new")
    for missing in ("<!-- x -->\n", "<!-- /x -->\n"):
        with pytest.raises(ValueError, match="no section x"):
            generate._with_section(text.replace(missing, ""), "<!-- {} -->", "x", "new\n")


def test_each_exit_status_has_its_meaning():
    """And preforkd, whose errors are the classes of `preforkd.errors`, documents all of theirs."""
    assert set(EXIT_STATUSES) == set(ExitStatus)
    classes = (ApplicationError, ConfigurationError, InternalError, SystemFailure)
    for error in classes:
        assert EXIT_STATUSES[error.exit_status].preforkd
    for meaning in EXIT_STATUSES.values():
        assert meaning.preforkctl.endswith(".")


def test_the_sample_is_all_defaults(tmp_path):
    """As shipped the sample sets nothing; with every comment removed it sets every default."""
    path = tmp_path / "sample.yaml"
    path.write_text(generate.sample())
    assert sources.load(str(path), {}).origins == {}
    path.write_text(generate.uncommented(generate.sample()))
    loaded = sources.load(str(path), {})
    assert loaded.settings == Settings()
    empty = {leaf.path for leaf in leaves() if leaf.default == ""}
    assert {leaf.path for leaf in leaves()} - empty <= set(loaded.origins)


def test_the_schema_describes_every_setting():
    """Each setting is in the schema with its help, and nothing else is allowed."""
    whole = json.loads(generate.schema())
    for leaf in leaves():
        node = whole
        for name in leaf.path.split("."):
            if "anyOf" in node:
                (node,) = (one for one in node["anyOf"] if "properties" in one)
            assert node.get("additionalProperties") is False
            node = node["properties"][name]
        assert node["description"] == leaf.help
