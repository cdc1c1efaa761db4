"""Who waits for a reload."""

from preforkd.errors import Blame, Failure
from preforkd.supervisor import reloads


def test_requests_are_merged_and_answered_together():
    """Those who ask before it begins share it; those who ask during it share the next."""
    queue, answers = reloads.Reloads(), []
    queue.request(answers.append, fresh=False)
    queue.request(answers.append, fresh=True)
    assert queue.begin()
    assert not queue.pending
    queue.request(answers.append, fresh=False)
    done = reloads.success(2, "done", ("workers",))
    queue.answer(done)
    assert answers == [done, done]
    assert queue.pending
    assert not queue.begin()
    failed = reloads.refusal(Failure(Blame.SYSTEM, "no", "d", "h"))
    queue.answer(failed)
    assert answers == [done, done, failed]
    assert (queue.last.ok, queue.last.blame) == (False, "system")


def test_a_stop_refuses_everybody():
    """Who waits for the running one and who waits for the next."""
    queue, answers = reloads.Reloads(), []
    queue.request(answers.append, fresh=False)
    queue.begin()
    queue.request(answers.append, fresh=False)
    queue.refuse()
    assert [answer.blame for answer in answers] == ["stopping", "stopping"]
