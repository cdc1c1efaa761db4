"""Derived files are what their declarations say."""

import json
from pathlib import Path

import preforkd
from preforkd.cli import generate
from preforkd.config import sources
from preforkd.config.fields import leaves
from preforkd.config.settings import Settings

ROOT = Path(preforkd.__file__).resolve().parent.parent


def test_the_derived_files_are_fresh():
    """etc/ and the README's table are what `python -m preforkd.cli.generate` writes."""
    assert (ROOT / "etc/preforkd.yaml").read_text() == generate.sample()
    assert (ROOT / "etc/preforkd.schema.json").read_text() == generate.schema()
    assert (ROOT / "systemd/preforkd.catalog").read_text() == generate.journal_catalog()
    assert (ROOT / "packaging/man/preforkd.yaml.5").read_text() == generate.manual()
    readme = (ROOT / "README.md").read_text()
    assert generate.with_reference(readme) == readme


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
