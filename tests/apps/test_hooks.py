"""Hooks: what is found, what is refused, and what becomes of one that fails."""

import logging
import sys

import pytest

from preforkd.apps import hooks
from preforkd.errors import ApplicationError, ConfigurationError


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load hooks from a module with this text."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    numbers = iter(range(1000))

    def load_text(text, attribute="", kind="wsgi"):
        name = f"hooks_of_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        reference = name + (f":{attribute}" if attribute else "")
        return hooks.load(reference, kind, preload=True), sys.modules.get(name)

    yield load_text
    for name in set(sys.modules) - before:
        del sys.modules[name]


SEEN = "seen = []\n"


@pytest.mark.parametrize(
    ("text", "attribute"),
    [
        (SEEN + "def after_fork(): seen.append(1)", ""),
        (SEEN + "class Hooks:\n    def after_fork(self): seen.append(1)", "Hooks()"),
        (SEEN + "class Hooks:\n    def after_fork(self): seen.append(1)\nmine = Hooks()", "mine"),
        (SEEN + "class Hooks:\n    @staticmethod\n    def after_fork(): seen.append(1)", "Hooks"),
        (
            SEEN + "from types import SimpleNamespace as N\n"
            "ours = N(hooks=N(after_fork=lambda: seen.append(1)))",
            "ours.hooks",
        ),
    ],
)
def test_any_object_may_hold_them(load, text, attribute):
    """A module, an instance that is made or there, a class of static methods, a namespace."""
    found, module = load(text, attribute)
    assert found.call("after_fork") == ""
    assert found.call("worker_started") == ""  # not there, and nothing happens
    assert module.seen == [1]


def test_a_hook_that_fails_is_reported_and_contained(load, caplog):
    """An exception, and sys.exit: the traceback is logged, the caller learns of it in one line."""
    found, _ = load(
        "import sys\ndef before_refork(): raise ValueError('still dirty')\n"
        "def worker_leaving(): sys.exit(3)\n"
    )
    assert found.call("before_refork") == "the hook before_refork failed: ValueError: still dirty"
    assert found.call("worker_leaving") == "the hook worker_leaving failed: SystemExit: 3"
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "raise ValueError('still dirty')" in caplog.text


def test_arguments_are_passed_on():
    """What a moment tells of reaches the hook."""
    seen = []
    found = hooks.Hooks({"request_ended": lambda environ, status: seen.append((environ, status))})
    found.call("request_ended", {"a": 1}, 204)
    assert seen == [({"a": 1}, 204)]


def test_whether_requests_have_hooks():
    """The worker asks once, and then pays nothing for hooks that are not there."""
    assert not hooks.Hooks().of_requests
    assert not hooks.Hooks({"after_fork": print}).of_requests
    assert hooks.Hooks({"request_begun": print}).of_requests
    assert hooks.Hooks({"request_ended": print}).of_requests


def test_no_setting_no_hooks():
    """The default imports nothing."""
    assert hooks.load("", "asgi", preload=True).call("after_fork") == ""


@pytest.mark.parametrize(
    ("text", "attribute", "words", "hint"),
    [
        ("", "hook", "has no attribute 'hook'", ""),
        ("after_fork = 3", "", "after_fork is not callable, it is of type int", ""),
        ("def f(): pass", "", "has none of the hooks", "known are zygote_loaded"),
        ("def after_forks(): pass", "", "none of the hooks", "did you mean after_fork by after_f"),
        ("class H:\n    def after_fork(self): pass", "H", "needs an instance", ":H() makes one"),
        ("async def after_fork(): pass", "", "after_fork is asynchronous", ""),
        ("def request_begun(): pass", "", "request_begun cannot be called with 1 argument", ""),
        ("def request_ended(environ): pass", "", "request_ended cannot be called with 2 arg", ""),
        ("def after_fork(worker): pass", "", "after_fork cannot be called with 0 arguments", ""),
    ],
)
def test_what_is_named_wrongly_is_the_administrators(load, text, attribute, words, hint):
    """The error names the setting and says what is wrong with it."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        load(text, attribute)
    assert caught.value.problems[0].setting == "hooks"
    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", ["stream", "asgi"])
def test_hooks_of_requests_are_for_wsgi(load, kind):
    """Elsewhere they would never be called; the others are for every kind."""
    with pytest.raises(ConfigurationError, match="request_begun is called for kind wsgi only"):
        load("def after_fork(): pass\ndef request_begun(environ): pass", kind=kind)
    load("def after_fork(): pass\ndef worker_leaving(): pass", kind=kind)


def test_a_module_that_is_not_there_or_fails(load):
    """The first is the administrator's, the second the application's."""
    with pytest.raises(ConfigurationError, match="hooks: there is no module named 'nowhere_to_be'"):
        hooks.load("nowhere_to_be:x", "wsgi", preload=True)
    with pytest.raises(ApplicationError, match="ZeroDivisionError"):
        load("1 / 0")


def test_a_misspelled_hook_beside_a_right_one_is_told(load, caplog):
    """It would never be called, and nobody would notice."""
    load("def after_fork(): pass\ndef worker_start(): pass\n")
    assert "did you mean worker_started by worker_start?" in caplog.text
