"""The catalog of messages."""

import re

from preforkd.logs import catalog


def test_every_entry_is_one_that_the_journal_takes():
    """An id of 32 lower-case hexadecimal digits, used once; a subject of one line; a text."""
    assert len({entry.id for entry in catalog.ENTRIES}) == len(catalog.ENTRIES)
    for entry in catalog.ENTRIES:
        assert re.fullmatch(r"[0-9a-f]{32}", entry.id)
        assert "\n" not in entry.subject
        assert entry.text.endswith(".")


def test_every_entry_is_told_to_administrators():
    """No entry is declared and left out of the catalog."""
    declared = {name for name in dir(catalog) if name.isupper()} - {"ENTRIES"}
    assert {getattr(catalog, name) for name in declared} == set(catalog.ENTRIES)
