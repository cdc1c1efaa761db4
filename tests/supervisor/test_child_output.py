"""What children write below Python: read from pipes, forwarded to the journal with its writer."""

import itertools
import os
import select
import subprocess
import sys

import pytest

from preforkd.logs.journal import encoded
from preforkd.loop import Loop
from preforkd.supervisor.child_output import Outputs
from tests.logs.test_journal import parse


class Journal:
    """Takes entries; one that does not read takes none."""

    def __init__(self, *, reads=True):
        self.entries, self.reads = [], reads

    def send(self, fields):
        self.send_encoded(encoded(fields))

    def send_encoded(self, entry):
        if not self.reads:
            raise BlockingIOError
        self.entries.append(parse(entry))

    def wait(self):
        self.waits = True

    def close(self):
        pass


def play(scene, *, reads=True):
    """Run a scene with an output in a loop; return what the journal has got."""
    journal, loop = Journal(reads=reads), Loop()
    loop.call_later(60, pytest.fail, "the scene does not end")
    output = Outputs(loop, journal).open_to_journal({"PREFORKD_WORKER": 3})
    try:
        scene(output)
    finally:
        output.close()
        loop.close()
    return journal.entries


def read_until(output, done):
    """Let the loop run until it is done, looking every few milliseconds."""
    loop = output._loop

    def poll():
        if done():
            loop.stop()
        else:
            loop.call_later(0.005, poll)

    loop.call_soon(poll)
    loop.run()


def shell(output, script):
    """Run a shell as the child; return when it has ended."""
    out, err = output.child_ends
    child = subprocess.Popen(["sh", "-c", script], stdout=out, stderr=err)
    output.close_child_ends()
    output.set_pid(child.pid)
    assert child.wait() == 0
    return child.pid


def test_lines_have_priority_and_who_wrote_them():
    """Standard output informs, standard error warns, unless a prefix of sd-daemon(3) sets the level."""
    pids = []

    def scene(output):
        script = "echo one; echo two >&2; echo '<3>three' >&2; echo >&2; printf 'no end'"
        pids.append(shell(output, script))
        output.drain()
        output.drain()

    entries = {entry["MESSAGE"]: entry for entry in play(scene)}
    assert {text: entry["PRIORITY"] for text, entry in entries.items()} == {
        "one": "6",
        "two": "4",
        "three": "3",
        "no end": "6",
    }
    assert {entry["OBJECT_PID"] for entry in entries.values()} == set(map(str, pids))
    assert all(entry["PREFORKD_WORKER"] == "3" for entry in entries.values())


def test_it_is_read_until_the_last_writer_has_ended():
    """What a child of the child writes after its parent has ended arrives, without a drain."""

    def scene(output):
        shell(output, "(read go < /dev/null; echo late >&2) &")
        read_until(output, lambda: not output._streams)

    assert [entry["MESSAGE"] for entry in play(scene)] == ["late"]


def test_letters_are_whole_though_they_come_in_pieces():
    """A letter of several bytes may be cut by the pipe; what is no UTF-8 is escaped."""

    def scene(output):
        out, _ = output.child_ends
        for piece in ("ä".encode()[:1], "ä".encode()[1:] + b"\n", b"\xff\n"):
            os.write(out, piece)
            output.drain()

    assert [entry["MESSAGE"] for entry in play(scene)] == ["ä", "\\xff"]


def test_a_journal_that_does_not_read_stops_nobody():
    """A child that writes more than all buffers hold ends; its lines are lost, counted, and logged."""

    def scene(output):
        out, err = output.child_ends
        journal = output._outputs._journal
        code = "import os\nfor _ in range(3000): os.write(2, b'x' * 99 + b'\\n')"
        with subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=err) as child:
            output.close_child_ends()
            read_until(output, lambda: child.poll() is not None)
            assert child.returncode == 0
            read_until(output, lambda: not output._streams)
        assert journal.entries == []
        journal.reads = True
        read_until(output, lambda: journal.entries)

    (entry,) = play(scene, reads=False)
    assert entry["MESSAGE"] == "3000 lines of worker 3 were lost: the journal did not take them"
    assert (entry["PREFORKD_MISSED"], entry["PREFORKD_WORKER"]) == ("3000", "3")


def test_a_journal_that_is_behind_loses_nothing():
    """One that takes lines now and then gets each, in order: the child waits for it."""
    tries = itertools.count(1)

    class Behind(Journal):
        def send_encoded(self, entry):
            if next(tries) % 40 == 0:
                raise BlockingIOError
            super().send_encoded(entry)

    loop, journal = Loop(), Behind()
    loop.call_later(60, pytest.fail, "the scene does not end")
    output = Outputs(loop, journal).open_to_journal({"PREFORKD_WORKER": 3})
    shell(output, "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo $i; done")
    read_until(output, lambda: not output._streams)
    loop.close()
    assert [entry["MESSAGE"] for entry in journal.entries] == [str(n) for n in range(1, 2001)]


def test_who_writes_without_end_has_a_ration(monkeypatch):
    """A few lines of each in a turn, per second a number for all; others are forwarded at once."""
    loop, journal = Loop(), Journal()
    outputs = Outputs(loop, journal)
    outputs.ratelimit.limit = 300
    now = 100.0
    monkeypatch.setattr(loop, "time", lambda: now)
    floods = [outputs.open_to_journal({"PREFORKD_WORKER": number}) for number in range(4)]
    quiet = outputs.open_to_journal({"PREFORKD_WORKER": 9})
    children = []
    turns = []

    def poll():
        turns.append(len(journal.entries))
        loop.stop()

    try:
        for output in floods:
            out, err = output.child_ends
            children.append(subprocess.Popen(["yes"], stdout=out, stderr=err))
            output.close_child_ends()
            select.select([next(iter(output._streams))], [], [])
        for turn in range(40):
            if turn == 20:
                os.write(quiet.child_ends[0], b"quiet\n")
            loop.call_soon(poll)
            loop.run()
        assert max(after - before for before, after in itertools.pairwise(turns)) <= 4 * 64 + 1
        assert 300 <= turns[-1] <= 300 + 4 * 64 + 1
        assert "9" in {entry["PREFORKD_WORKER"] for entry in journal.entries}
        now = 101.5
        for _ in range(3):
            loop.call_soon(poll)
            loop.run()
        assert turns[-1] > turns[-4]
    finally:
        for child in children:
            child.kill()
            child.wait()
        outputs.close()
        loop.close()


def test_what_is_left_at_the_end_is_told(monkeypatch):
    """Closing forwards the lines that were written, also one without an end."""
    loop, journal = Loop(), Journal()
    outputs = Outputs(loop, journal)
    output = outputs.open_to_journal({"PREFORKD_WORKER": 3})
    os.write(output.child_ends[1], b"last\nword")
    outputs.close()
    loop.close()
    assert [entry["MESSAGE"] for entry in journal.entries] == ["last", "word"]
    assert journal.waits


def test_a_line_without_an_end_is_cut():
    """Memory for one line is limited."""

    def scene(output):
        out, _ = output.child_ends
        for _ in range(4):
            os.write(out, b"x" * 60000)
            output.drain()

    entries = play(scene)
    assert len(entries) >= 3
    assert max(len(entry["MESSAGE"]) for entry in entries) <= 48 * 1024
