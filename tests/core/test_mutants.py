"""Deliberate bugs in the policy: the simulator must catch each, or it proves nothing."""

import pytest

from preforkd.core import autoscale, backoff, demand, events as ev, policy, recycling
from preforkd.core.model import ALIVE, BOOTING, Role, WorkerState, ZygoteState
from tests.core.invariants import Invariants, Violation
from tests.core.simulator import simulate

SEEDS = 600
pytestmark = pytest.mark.simulation


def caught(numbers):
    """Demand that the simulator finds a violation, first of one of these invariants."""
    for seed in range(SEEDS):
        try:
            simulate(seed)
        except Violation as found:
            violation = found
            break
    else:
        raise AssertionError(f"not caught within {SEEDS} seeds")
    assert violation.number in numbers, violation


def replace_rule(monkeypatch, name, mutant):
    """Put a mutant in a rule's place."""
    replace_rule_of(policy, monkeypatch, name, mutant)


def replace_rule_of(module, monkeypatch, name, mutant):
    """Put a mutant in the place of a rule that another module holds."""
    original = getattr(module, name)
    for rules in ("_SERVING_RULES", "_STOPPING_RULES"):
        mutated = tuple(mutant if rule is original else rule for rule in getattr(policy, rules))
        monkeypatch.setattr(policy, rules, mutated)


def test_counting_workers_that_are_not_ready_as_capacity(monkeypatch):
    """Old workers retire while the new ones are still starting."""

    def retire_surplus(view):
        board = view.board
        newest = max(board.generations, default=None)
        living = [row for row in board.workers.values() if row.state in ALIVE]
        surplus = len(living) - view.limits.target
        old = [row for row in living if row.generation != newest and row.serving]
        for row in old[: max(0, surplus)]:
            yield ev.RetireWorker(row.worker)

    replace_rule(monkeypatch, "_retire_surplus", retire_surplus)
    caught({5})


def test_ignoring_the_back_off(monkeypatch):
    """Starts that fail are repeated at once."""
    original = policy._fork_workers

    def fork_workers(view):
        streaks = {row.generation: row.failure_streak for row in view.board.generations.values()}
        for row in view.board.generations.values():
            row.failure_streak = backoff.FailureStreak()
        yield from list(original(view))
        for row in view.board.generations.values():
            row.failure_streak = streaks[row.generation]

    replace_rule(monkeypatch, "_fork_workers", fork_workers)
    caught({3})


def test_killing_without_asking_first(monkeypatch):
    """A stop that kills what serves."""

    def end_workers(view):
        for row in view.board.workers.values():
            if row.state is not WorkerState.KILLED:
                yield ev.KillWorker(row.worker, "mutant")

    replace_rule(monkeypatch, "_end_workers", end_workers)
    caught({6})


def test_forgetting_the_deadline_of_draining_workers(monkeypatch):
    """The loop would sleep while a retired worker stays."""

    def worker_deadline(row, limits):
        return row.since + limits.boot if row.state in BOOTING else None

    monkeypatch.setattr(policy, "_worker_deadline", worker_deadline)
    caught({4})


def test_not_counting_killed_workers(monkeypatch):
    """Draining workers occupy memory as well."""

    def room(view):
        alive = sum(row.state in ALIVE for row in view.board.workers.values())
        return view.limits.maximum + view.limits.surge - alive

    monkeypatch.setattr(policy, "_room", room)
    caught({2})


def test_serving_before_the_promotion(monkeypatch):
    """A candidate that may yet fail takes connections."""

    def serve(view):
        for row in view.board.workers.values():
            if row.state is WorkerState.READY and not row.serving:
                yield ev.ServeWorker(row.worker)

    replace_rule(monkeypatch, "_serve", serve)
    caught({7})


def test_not_retiring_the_old_generation(monkeypatch):
    """Two generations at rest."""
    replace_rule(monkeypatch, "_retire_surplus", lambda _view: iter(()))
    caught({7})


def test_never_ending(monkeypatch):
    """A stop that waits for a zygote that stays."""

    def kill_late_zygotes(_view):
        return iter(())

    replace_rule(monkeypatch, "_kill_late_zygotes", kill_late_zygotes)
    caught({4, 8})


def test_retiring_workers_at_a_limit_before_their_replacements_serve(monkeypatch):
    """A limit that costs capacity."""

    def retire_replaced(view):
        current = view.board.current
        for row in recycling.to_recycle(view.board, current) if current else ():
            yield ev.RetireWorker(row.worker)

    replace_rule_of(recycling, monkeypatch, "retire_replaced", retire_replaced)
    caught({5})


def test_shrinking_as_soon_as_no_worker_is_busy(monkeypatch):
    """The pool forks and retires the same workers again and again."""
    monkeypatch.setattr(demand, "WINDOW", 0.0)
    monkeypatch.setattr(autoscale, "SHRINK_EVERY", 0.5)
    caught({9})


def test_growing_beyond_the_maximum(monkeypatch):
    """Evidence is no reason to ignore the limit."""

    def grow(view):
        wanted = view.board.demand.sample.waiting
        if view.board.current and view.board.demand.size < wanted:
            yield ev.Resize(wanted, view.size, "mutant")

    replace_rule_of(autoscale, monkeypatch, "grow", grow)
    caught({2})


def test_killing_the_overdue_before_their_stacks_are_written(monkeypatch):
    """The log would not show where it hung."""

    def dump_overdue(view):
        for row in view.board.workers.values():
            if row.overdue and row.state is not WorkerState.KILLED:
                yield ev.KillWorker(row.worker, "mutant")

    replace_rule_of(recycling, monkeypatch, "dump_overdue", dump_overdue)
    caught({6})


def test_waiting_for_ever_for_a_zygote_that_a_worker_forks(monkeypatch):
    """A refork that hangs keeps the next one, and the stop, waiting."""
    replace_rule_of(recycling, monkeypatch, "judge_refork", lambda _view: iter(()))
    monkeypatch.setattr(policy, "_zygote_deadlines", lambda _view, _row: iter(()))
    caught({4, 7, 8})


def test_forgetting_a_worker_that_became_ready_in_the_turn_of_the_promotion(monkeypatch):
    """It is of the old generation, never served, and would never be retired."""

    def remove_unwanted(view):
        for action in policy_remove_unwanted(view):
            row = view.board.workers[action.worker]
            old = view.board.generations[row.generation].role is Role.OLD
            if not (old and isinstance(action, ev.RetireWorker)):
                yield action

    policy_remove_unwanted = policy._remove_unwanted
    replace_rule(monkeypatch, "_remove_unwanted", remove_unwanted)
    caught({7})


def test_waiting_for_ever_for_a_zygote_that_does_not_answer(monkeypatch):
    """Each worker that it does not fork is given up, and the next is asked of the same zygote."""

    def zygote_deadlines(view, row):
        silent = row.state is ZygoteState.READY
        return iter(()) if silent else policy_zygote_deadlines(view, row)

    policy_zygote_deadlines = policy._zygote_deadlines
    monkeypatch.setattr(policy, "_zygote_deadlines", zygote_deadlines)
    monkeypatch.setattr(Invariants, "first_deadline", lambda _self: None)
    caught({7})


def test_bringing_up_a_candidate_of_the_size_before(monkeypatch):
    """A reload that makes the pool smaller starts workers that leave as soon as they serve."""
    monkeypatch.setattr(policy, "size_of", lambda board, limits: 1000)
    caught({10})
