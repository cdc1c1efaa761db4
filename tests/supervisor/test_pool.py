"""What the pool makes of what children say; what it does to them is proven with real processes."""

from preforkd.core.model import Blame
from preforkd.errors import Place
from preforkd.ipc import messages
from preforkd.supervisor.pool import failure_of

ORIGINS = {"tls.certificate": Place("/etc/preforkd.yaml", 5, 16)}


def test_a_setting_is_told_with_its_place():
    """The child knows the setting, the master where it was written."""
    problem = messages.Problem("configuration", "gone", hint="h", setting="tls.certificate")
    failure = failure_of(problem, ORIGINS)
    assert failure.reason == "/etc/preforkd.yaml:5:16: gone"
    assert (failure.blame, failure.hint) == (Blame.CONFIGURATION, "h")
    assert failure_of(problem, {}).reason == "gone"


def test_what_a_child_says_is_cut():
    """However much it says, a message to people stays one."""
    problem = messages.Problem("system", "r" * 50_000, "d" * 500_000, "h" * 50_000, "s" * 50_000)
    failure = failure_of(problem, ORIGINS)
    assert max(len(failure.reason), len(failure.hint)) <= 4096
    assert len(failure.detail) <= messages.DETAIL_LIMIT + 2


def test_what_a_child_says_is_fit_to_be_shown():
    """No escape for a terminal, one line for reason and hint, and no value of a credential."""
    text = "\x1b[2J no s3cr3t\nnext"
    failure = failure_of(messages.Problem("application", text, text, text), {}, ["s3cr3t"])
    assert failure.reason == failure.hint == r"\x1b[2J no (credential)\nnext"
    assert failure.detail == "\\x1b[2J no (credential)\nnext"
