"""Bounds: the memory that all bodies share, and the error of a refusal."""

from preforkd.http.bounds import Budget, RequestError


def test_a_budget_is_never_exceeded():
    """A reservation is whole or none; what was released can be reserved again."""
    budget = Budget(memory=10, files=5)
    assert budget.take("memory", 10)
    assert not budget.take("memory", 1)
    assert not budget.take("files", 6)
    assert budget.take("files", 5)
    budget.give_back("memory", 4)
    assert not budget.take("memory", 5)
    assert budget.take("memory", 4)


def test_a_refusal_has_its_answer():
    """Status, reason, further headers."""
    error = RequestError("426 Upgrade Required", "why", (("Upgrade", "websocket"),))
    assert (error.status, error.reason, str(error)) == ("426 Upgrade Required", "why", "why")
    assert error.headers == (("Upgrade", "websocket"),)
    assert RequestError("400 Bad Request", "x").headers == ()
