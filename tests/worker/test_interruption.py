"""Exceptions of the application that come while it has no request, told from those of the worker itself."""

import os
import types

import pytest

from preforkd.worker import interruption


def raised_by(code, module):
    """Return what this code raises in a module of this name."""
    namespace = types.ModuleType(module).__dict__
    try:
        exec(code, namespace)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("code", "module", "application"),
    [
        ("raise TimeoutError('late')", "site.views.late", False),  # a module of Python's own
        ("raise TimeoutError('late')", "shop.views", True),
        ("import json; json.loads('{')", "shop", True),
        ("raise OSError(9, 'closed')", "preforkd.worker.wsgi.loop", False),
        ("import selectors; selectors.EpollSelector().register(-1, 1)", "preforkd", False),
        ("raise OSError(9, 'closed')", "__main__", False),
        ("raise OSError(9, 'closed')", "uvloop.loop", False),
        ("raise OSError(9, 'closed')", "websockets.frames", False),
        ("raise OSError(9, 'closed')", "msgspec.msgpack", False),
        ("raise KeyboardInterrupt", "preforkd.worker.wsgi.loop", True),
        ("raise SystemExit", "preforkd.worker.wsgi.loop", True),
    ],
)
def test_whose_code_has_raised_it(code, module, application):
    """A frame of another module than ours and Python's is the application's; so is what ends a program."""
    error = raised_by(code, module)
    error.__traceback__ = error.__traceback__.tb_next  # without this module's frame
    assert interruption.comes_from_application(error) == application


class FakeAcceptor:
    def __init__(self):
        self.retired = 0

    def retire(self):
        self.retired += 1


def test_the_worker_leaves_for_the_application_only(caplog):
    """What it has raised is logged; what preforkd has, or a child that came back meets, ends the process."""
    late, own = raised_by("raise ValueError('late')", "shop"), raised_by("1 / 0", "preforkd")
    own.__traceback__ = own.__traceback__.tb_next
    acceptor = FakeAcceptor()
    interruption.retire_if_interrupted(late, acceptor, os.getpid())
    assert acceptor.retired == 1
    assert "late" in caplog.text
    assert [record.name for record in caplog.records] == ["preforkd.app"]
    with pytest.raises(ZeroDivisionError):
        interruption.retire_if_interrupted(own, acceptor, os.getpid())
    with pytest.raises(ValueError, match="late"):
        interruption.retire_if_interrupted(late, acceptor, os.getpid() + 1)
    assert acceptor.retired == 1
