"""Deaths of the zygote: idle, while it loads, and at each point of a worker's birth."""

import os
import signal

import pytest

from tests.process.faults import get, serve, settle, whole_again
from tests.process.load import Load


def test_a_zygote_that_dies_while_loading_ends_the_first_start(service):
    """There is nothing to fall back to: the service says what happened and ends with 69."""
    serve(service, variables={"BREAK": "kill-at-import"}, ready=False)
    assert service.wait() == 69
    assert "the zygote exited while loading the application: killed by SIGKILL" in service.log


def test_a_zygote_that_dies_while_loading_refuses_the_reload(service):
    """The old generation never notices."""
    serve(service)
    before = set(service.workers())
    settle(service, variables={"BREAK": "kill-at-import"})
    with Load(service.address, rate=100) as load:
        answer = service.control("reload")
        load.wait_for(10)
    assert answer.returncode == 69
    assert "the zygote exited while loading the application: killed by SIGKILL" in answer.stderr
    assert load.result.lost == 0, load.result.bad
    whole_again(service, 2, set())
    assert set(service.workers()) == before


def test_a_zygote_that_cannot_be_replaced_is_tried_again(service):
    """The workers serve on while their zygote dies at each start; it comes when it can."""
    serve(service, variables={"BREAK": "kill-when-told"})
    before = set(service.workers())
    flag = service.folder / "die"
    flag.touch()
    os.kill(service.zygote(), signal.SIGKILL)
    service.until(lambda _: "2 consecutive start failures" in service.log)
    assert get(service.address, "/?id=1")[0] == 200
    flag.unlink()
    whole_again(service, 2, set())
    assert set(service.workers()) == before


@pytest.mark.parametrize("where", ["before", "parent", "middle", "newborn"])
def test_a_zygote_that_dies_while_forking(service, where):
    """Whichever process of a birth dies: the worker comes all the same, once, and nobody is left over."""
    serve(service, variables={"BREAK": f"die-{where}"})
    victim, *_ = before = service.workers()
    (service.folder / "die").touch()
    with Load(service.address, keep_alive=0, rate=100) as load:
        os.kill(victim, signal.SIGKILL)
        whole_again(service, 2, {victim})
        load.wait_for(10)
    assert load.result.lost <= 1, load.result.bad
    assert not (service.folder / "die").exists()
    assert before[1] in service.workers()


def test_a_zygote_that_is_killed_while_it_forks_many(service):
    """SIGKILL in the middle of 32 births: in the end there are 32 workers, and nobody else."""
    serve(service)
    settle(service, workers=32)
    zygote = service.zygote()
    service.control("reload")
    os.kill(zygote, signal.SIGKILL)
    whole_again(service, 32, set())
    assert "killed by SIGKILL" in service.log
