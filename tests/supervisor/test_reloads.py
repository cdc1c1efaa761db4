"""Who waits for a reload."""

from preforkd.errors import Blame, Failure
from preforkd.supervisor import reloads


def test_requests_are_merged_and_answered_together():
    """Those who ask before it begins share it; those who ask during it share the next."""
    book, told = reloads.Reloads(), []
    book.request(told.append, fresh=False)
    book.request(told.append, fresh=True)
    assert book.begin()
    assert not book.pending
    book.request(told.append, fresh=False)
    done = reloads.success(2, "done", ("workers",))
    book.answer(done)
    assert told == [done, done]
    assert book.pending
    assert not book.begin()
    failed = reloads.refusal(Failure(Blame.SYSTEM, "no", "d", "h"))
    book.answer(failed)
    assert told == [done, done, failed]
    assert (book.last.ok, book.last.blame) == (False, "system")


def test_a_stop_refuses_everybody():
    """Who waits for the running one and who waits for the next."""
    book, told = reloads.Reloads(), []
    book.request(told.append, fresh=False)
    book.begin()
    book.request(told.append, fresh=False)
    book.refuse()
    assert [answer.blame for answer in told] == ["stopping", "stopping"]
