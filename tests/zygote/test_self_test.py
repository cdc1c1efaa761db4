"""The self-test of the immortal heap: that it succeeds here, and what it notices."""

import pytest

from tests.zygote.interpreters import run


def test_it_succeeds_here_and_leaves_nothing(python):
    """In a child; objects of this process stay mortal."""
    code = (
        "import gc, sys; from preforkd.zygote import self_test; frozen = gc.get_freeze_count();"
        "print(repr(self_test.run()), sys.getrefcount(self_test.run) < 100, gc.get_freeze_count() == frozen)"
    )
    assert run(python, code) == "'' True True\n"


BROKEN = """
import gc, os, signal, sys
from preforkd.zygote import immortal, self_test
test = self_test
"""


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (
            "immortal.Counts.write = lambda self, objects: None",
            "reference counts do not have the value that was written",
        ),
        (
            "test._use_and_measure = lambda *lists: os.kill(os.getpid(), signal.SIGSEGV)",
            "a process that used immortal objects ended with -11",
        ),
        (
            "immortal.COUNT -= 1",
            "the reference counts of immortal objects change",
        ),
        (
            (
                "immortal.Counts.write = lambda self, objects: None; "
                "immortal.Counts.mortal = lambda self, objects: bytes([len(objects) > 100] * len(objects))"
            ),
            "the reference counts of immortal objects change",
        ),
        (
            "test._verify = lambda: os._exit(5)",
            "the process of the self-test ended with 5",
        ),
        (
            "test._verify = signal.pause; test._TIMEOUT = 1",
            "the process of the self-test ended with -14",
        ),
        (
            "gc.collect = lambda: 0",
            "garbage is not collected beside an immortal heap",
        ),
        (
            "immortal.immortalise = lambda: os.kill(os.getpid(), signal.SIGSEGV)",
            "the process of the self-test ended with -11",
        ),
    ],
)
def test_it_notices(python, fault, verdict):
    """What does not hold, and processes that are killed or do not end."""
    assert run(python, f"{BROKEN}{fault}\nprint(self_test.run())").strip() == verdict


def test_it_notices_a_count_without_a_flag(python):
    """From 3.14 on the count alone does not protect objects, which are written to while they are used."""
    flagged = "from preforkd.zygote import immortal, self_test; print(immortal._WRITTEN >> 32)"
    if run(python, flagged) == "0\n":
        pytest.skip("this interpreter has no flags")
    code = f"{BROKEN}immortal._WRITTEN = immortal.COUNT\nprint(self_test.run())"
    assert run(python, code).strip() in {
        "pages with immortal objects are written to when the objects are used",
        "the reference counts of immortal objects change",
    }
