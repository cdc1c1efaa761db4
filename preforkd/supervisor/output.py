"""What children write to their standard output and error, below Python: libraries in C, programs started.

Each zygote and each worker has pipes of its own for the two, so that a line is known by who wrote it,
also by a process that it has started and that is gone. They are read here and go to the journal with
priority and fields. A pipe belongs to nobody's life: it is read until its last writer has ended.

Only where our own records go to the journal, too; elsewhere the children inherit what we have.
"""

import codecs
import logging
import os

from preforkd.linux import logs
from preforkd.linux.journal import Journal
from preforkd.linux.loop import Loop

logger = logging.getLogger("preforkd.master")

_AT_ONCE = 65536
"""Bytes that are read before the loop turns again."""


class Output:
    """The pipes of one child; hand out `theirs`, then say that they are `given`."""

    def __init__(self, loop: Loop, journal: Journal, fields: dict[str, object]) -> None:
        """Open the pipes and read them. Raises OSError."""
        self.theirs: tuple[int, ...] = ()
        """The descriptors to be 1 and 2 of the child."""
        self._fields = fields
        self._loop = loop
        self._streams: dict[int, tuple[codecs.IncrementalDecoder, logs.Lines]] = {}
        try:
            for level in (logging.INFO, logging.WARNING):
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                self.theirs = (*self.theirs, theirs)
                decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
                self._streams[ours] = decoder, logs.Lines(level, self._who, journal)
                os.set_blocking(ours, False)
                loop.add_reader(ours, self._read, ours)
        except OSError:
            self.close()
            raise

    def given(self) -> None:
        """Close our copies of what the child has now."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = ()

    def belongs_to(self, pid: int) -> None:
        """Say whose output it is, as soon as it is known."""
        self._fields |= {"OBJECT_PID": pid, "PREFORKD_PID": pid}

    def drain(self) -> None:
        """Read what is there: the child has ended, and its last words come before that news."""
        for stream in list(self._streams):
            self._read(stream)

    def close(self) -> None:
        """Read no more."""
        self.given()
        for stream in list(self._streams):
            self._end(stream)

    def _who(self) -> dict[str, object]:
        return self._fields

    def _read(self, stream: int) -> None:
        try:
            data = os.read(stream, _AT_ONCE)
        except BlockingIOError:
            return
        decoder, lines = self._streams[stream]
        lines.write(decoder.decode(data, final=not data))
        if not data:
            lines.flush()
            self._end(stream)

    def _end(self, stream: int) -> None:
        del self._streams[stream]
        self._loop.remove_reader(stream)
        os.close(stream)


class Outputs:
    """Opens what children write to."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._journal: Journal | None = None

    def open(self, **fields: object) -> Output | None:
        """Return pipes for a child; None where it is to inherit our standard output and error."""
        if not logs.to_journal():
            return None
        try:
            self._journal = self._journal or Journal(wait=False)
            return Output(self._loop, self._journal, fields)
        except OSError as error:
            logger.warning("the output of a child cannot be taken: %s", error.strerror)
            return None


def discard(output: Output | None) -> None:
    """Close what no child has come to have."""
    if output is not None:
        output.close()
