"""What children write below Python: read from pipes, told to the journal with who it was."""

import os
import subprocess
import sys

import pytest

from preforkd.linux.loop import Loop
from preforkd.supervisor.output import Output


class Journal:
    """Takes entries; one that does not read takes none."""

    def __init__(self, *, reads=True):
        self.entries, self.reads = [], reads

    def send(self, fields):
        if not self.reads:
            raise BlockingIOError
        self.entries.append(dict(fields))


def play(scene, *, reads=True):
    """Run a scene with an output in a loop; return what the journal has got."""
    journal, loop = Journal(reads=reads), Loop()
    loop.call_later(30, pytest.fail, "the scene does not end")
    output = Output(loop, journal, {"PREFORKD_WORKER": 3})
    try:
        scene(output)
    finally:
        output.close()
        loop.close()
    return journal.entries


def read_until(output, done):
    """Let the loop run until it is done, looking every few milliseconds."""
    loop = output._loop

    def look():
        if done():
            loop.stop()
        else:
            loop.call_later(0.005, look)

    loop.call_soon(look)
    loop.run()


def shell(output, script):
    """Run a shell as the child; return when it has ended."""
    out, err = output.theirs
    child = subprocess.Popen(["sh", "-c", script], stdout=out, stderr=err)
    output.given()
    output.belongs_to(child.pid)
    assert child.wait() == 0
    return child.pid


def test_lines_have_priority_and_who_wrote_them():
    """Standard output informs, standard error warns, and a prefix of sd-daemon(3) says otherwise."""
    pids = []

    def scene(output):
        script = "echo one; echo two >&2; echo '<3>three' >&2; echo >&2; printf 'no end'"
        pids.append(shell(output, script))
        output.drain()
        output.drain()

    entries = {entry["MESSAGE"]: entry for entry in play(scene)}
    assert {text: entry["PRIORITY"] for text, entry in entries.items()} == {
        "one": 6,
        "two": 4,
        "three": 3,
        "no end": 6,
    }
    assert {entry["OBJECT_PID"] for entry in entries.values()} == set(pids)
    assert all(entry["PREFORKD_WORKER"] == 3 for entry in entries.values())


def test_it_is_read_until_the_last_writer_has_ended():
    """What a child of the child writes after its parent has ended arrives, without a drain."""

    def scene(output):
        shell(output, "(read go < /dev/null; echo late >&2) &")
        read_until(output, lambda: not output._streams)

    assert [entry["MESSAGE"] for entry in play(scene)] == ["late"]


def test_letters_are_whole_though_they_come_in_pieces():
    """A letter of several bytes may be cut by the pipe; what is no UTF-8 is escaped."""

    def scene(output):
        out, _ = output.theirs
        for piece in ("ä".encode()[:1], "ä".encode()[1:] + b"\n", b"\xff\n"):
            os.write(out, piece)
            output.drain()

    assert [entry["MESSAGE"] for entry in play(scene)] == ["ä", "\\xff"]


def test_a_journal_that_does_not_read_stops_nobody():
    """A child that writes more than all buffers hold ends; its lines are lost."""

    def scene(output):
        out, err = output.theirs
        code = "import os\nfor _ in range(20000): os.write(2, b'x' * 99 + b'\\n')"
        with subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=err) as child:
            output.given()
            read_until(output, lambda: child.poll() is not None)
        assert child.returncode == 0

    assert play(scene, reads=False) == []


def test_a_line_without_an_end_is_cut():
    """Memory for one line is limited."""

    def scene(output):
        out, _ = output.theirs
        for _ in range(4):
            os.write(out, b"x" * 60000)
            output.drain()

    entries = play(scene)
    assert len(entries) >= 3
    assert max(len(entry["MESSAGE"]) for entry in entries) <= 48 * 1024
