"""The lines that the events of the pool write to the log."""

import logging

from preforkd.core import events as ev
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Blame, Failure
from preforkd.logs import catalog
from preforkd.supervisor import eventlog

FAILURE = Failure(Blame.APPLICATION, "the hook failed")


def log_and_apply(*events, board=None):
    """Log and apply events; return the board after them."""
    board = board or Scoreboard()
    for event in events:
        eventlog.log_event(event, board)
        board.apply(event, 0.0)
    return board


def serving():
    """Return a board whose first generation serves with one worker."""
    return log_and_apply(
        ev.GenerationRequested(1),
        ev.SpawnZygote(1, 1),
        ev.ZygoteSpawned(1, 100),
        ev.ZygoteLoaded(1),
        ev.ForkWorker(1, 1, 1, 1),
        ev.WorkerForked(1, 101),
        ev.WorkerReady(1),
        ev.Promote(1),
        ev.ServeWorker(1),
    )


def test_the_end_of_a_worker_that_serves_is_a_warning(caplog):
    """With its slot, its pid, its generation and the reason."""
    caplog.set_level(logging.INFO)
    log_and_apply(ev.WorkerExited(1, "killed by SIGKILL"), board=serving())
    last = caplog.records[-1]
    assert (
        last.getMessage()
        == "worker 1 (pid 101, generation 1) exited: killed by SIGKILL; starting a replacement"
    )
    assert last.levelno == logging.WARNING
    assert last.journal["OBJECT_PID"] == 101
    assert last.journal["MESSAGE_ID"] == catalog.WORKER_ENDED.id


def test_what_happens_as_planned_has_no_explanation(caplog):
    """Ready, replaced because of its age or its requests, ended: journalctl -x prints one line for each."""
    caplog.set_level(logging.INFO)
    board = serving()
    log_and_apply(
        ev.RecycleWorker(1, "it has served for 60 s"),
        ev.RetireWorker(1),
        ev.WorkerExited(1, "exit status 0"),
        board=board,
    )
    log_and_apply(
        ev.WorkerLimitReached(1, "it has answered 9 requests", planned=True), board=serving()
    )
    lines = [row for row in caplog.records if row.getMessage().startswith("worker")]
    texts = [row.getMessage().partition(") ")[2] for row in lines]
    assert texts == [
        "is ready",
        "will be replaced: it has served for 60 s",
        "exited: exit status 0",
        "is ready",
        "will be replaced: it has answered 9 requests",
    ]
    assert not any("MESSAGE_ID" in row.journal for row in lines)


def test_a_line_names_the_function_that_logs_it(caplog):
    """CODE_FUNC of the journal, for every function that logs."""
    caplog.set_level(logging.INFO)
    log_and_apply(ev.WorkerExited(1, "exit status 0"), board=serving())
    assert caplog.records[-1].funcName == "_worker_exited"

    row = serving().workers[1]

    def log():
        eventlog.log_entry(catalog.STOPPING, logging.INFO, "x")
        eventlog.log_failure("x", FAILURE)
        eventlog.log_stacks(row, "x", "", "", catalog.REQUEST_SLOW)

    caplog.clear()
    log()
    assert [row.funcName for row in caplog.records] == ["log"] * 3


def test_a_worker_that_was_being_started_when_the_service_stops_is_no_warning(caplog):
    """It is killed without a warning: no client loses anything."""
    caplog.set_level(logging.INFO)
    board = serving()
    log_and_apply(ev.ForkWorker(2, 2, 1, 1), ev.StopRequested(), board=board)
    caplog.clear()
    log_and_apply(ev.KillWorker(2, "the service is stopping"), board=board)
    assert [row.levelno for row in caplog.records] == [logging.INFO]


def test_a_refork_that_fails_is_logged_once(caplog):
    """As a refork that failed; not as an application that could not be loaded."""
    board = serving()
    caplog.clear()
    log_and_apply(
        ev.ForkZygote(2, 1, 1),
        ev.ZygoteFailed(2, FAILURE),
        ev.GiveUpRefork(2, FAILURE),
        board=board,
    )
    lines = [row.getMessage() for row in caplog.records if row.levelno >= logging.WARNING]
    assert lines == ["refork of generation 1 failed; keeping the previous zygote: the hook failed"]


def test_a_traceback_is_logged_once_for_all_workers_of_a_start(caplog):
    """The next worker that cannot start for the same reason is one line."""
    board = log_and_apply(ev.GenerationRequested(1), ev.SpawnZygote(1, 1), ev.ZygoteLoaded(1))
    failure = Failure(Blame.APPLICATION, "importing shop failed", "the traceback")
    forks = [ev.ForkWorker(1, 1, 1, 1), ev.ForkWorker(2, 2, 1, 1)]
    failures = [ev.WorkerFailed(1, failure), ev.WorkerFailed(2, failure)]
    log_and_apply(*forks, *failures, board=board)
    assert caplog.text.count("importing shop failed") == 2
    assert caplog.text.count("the traceback") == 1


def test_a_zygote_that_cannot_be_started_again_is_logged(caplog):
    """Its workers keep serving, and the failure is logged."""
    board = serving()
    caplog.clear()
    log_and_apply(
        ev.ZygoteExited(1, "killed by SIGKILL"),
        ev.SpawnZygote(2, 1),
        ev.ZygoteFailed(2, FAILURE),
        board=board,
    )
    assert "cannot load the application again; workers keep serving: the hook failed" in caplog.text
