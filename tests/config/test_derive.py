"""Derived files are what their declarations say."""

import json
from pathlib import Path

import preforkd
from preforkd.config import derive, sources
from preforkd.config.fields import leaves
from preforkd.config.settings import Settings

ROOT = Path(preforkd.__file__).resolve().parent.parent


def test_the_derived_files_are_fresh():
    """etc/ and the README's table are what `python -m preforkd.config.derive` writes."""
    assert (ROOT / "etc/preforkd.yaml").read_text() == derive.sample()
    assert (ROOT / "etc/preforkd.schema.json").read_text() == derive.schema()
    assert (ROOT / "systemd/preforkd.catalog").read_text() == derive.journal_catalog()
    assert (ROOT / "packaging/man/preforkd.yaml.5").read_text() == derive.manual()
    readme = (ROOT / "README.md").read_text()
    assert derive.with_reference(readme) == readme


def test_the_sample_is_all_defaults(tmp_path):
    """As shipped the sample sets nothing; with every comment removed it sets every default."""
    path = tmp_path / "sample.yaml"
    path.write_text(derive.sample())
    assert sources.load(str(path), {}).origins == {}
    path.write_text(derive.uncommented(derive.sample()))
    loaded = sources.load(str(path), {})
    assert loaded.settings == Settings()
    empty = {leaf.path for leaf in leaves() if leaf.default == ""}
    assert {leaf.path for leaf in leaves()} - empty <= set(loaded.origins)


def test_the_schema_describes_every_setting():
    """Each setting is in the schema with its help, and nothing else is allowed."""
    whole = json.loads(derive.schema())
    for leaf in leaves():
        node = whole
        for name in leaf.path.split("."):
            if "anyOf" in node:
                (node,) = (one for one in node["anyOf"] if "properties" in one)
            assert node.get("additionalProperties") is False
            node = node["properties"][name]
        assert node["description"] == leaf.help
