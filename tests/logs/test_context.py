"""The fields by which a record names its process."""

import logging

import pytest

from preforkd.logs import context


@pytest.fixture(autouse=True)
def _restored():
    yield
    context.remove_context("worker", "generation")


def test_a_process_is_named_by_its_role():
    """The master has no prefix; a zygote has its generation, a worker its number, too."""
    assert (context.message_prefix(), context.journal_fields()) == ("", {})
    context.set_context(generation=2)
    assert context.message_prefix() == "zygote (generation 2): "
    assert not context.is_worker()
    context.set_context(worker=3)
    assert context.message_prefix() == "worker 3 (generation 2): "
    assert context.journal_fields() == {"PREFORKD_WORKER": 3, "PREFORKD_GENERATION": 2}
    assert context.is_worker()
    context.remove_context("worker")
    assert context.message_prefix() == "zygote (generation 2): "
    assert not context.is_worker()


@pytest.mark.parametrize(
    ("level", "priority"),
    [(60, 2), (50, 2), (40, 3), (30, 4), (29, 6), (logging.INFO, 6), (logging.DEBUG, 7), (1, 7)],
)
def test_a_level_becomes_a_priority_of_syslog(level, priority):
    """The next lower level of logging decides; below DEBUG it is debug, too."""
    assert context.priority(level) == priority
