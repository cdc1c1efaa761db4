"""What children write to their standard output and error, below Python: libraries in C, programs started.

Each zygote and each worker has a pair of pipes, so that every line is attributed to its process, even if a
program that the process started wrote it and has exited. The master reads the pipes in its loop and sends
the lines to the journal with priority and fields. A pipe outlives its process: it is read until its last
writer has closed it.

Lines are limited per turn of the loop and per second. A process that writes more blocks, as on any full
pipe, so that neither the master's other work nor the journal is starved.

All this is done only if the master itself logs to the journal; otherwise children inherit its descriptors.
"""

import codecs
import contextlib
import logging
import os
from collections import deque

import msgspec

from preforkd.ipc.ratelimit import RateLimit
from preforkd.logs import logs
from preforkd.logs.captured import EntryLines
from preforkd.logs.journal import Journal
from preforkd.logs.sender import JournalSender
from preforkd.loop import Call, Loop

logger = logging.getLogger("preforkd.master")

LINES = 4000
"""Lines of all children together that are forwarded per second."""
LINES_A_TURN = 64
"""Lines of one stream that are forwarded per turn of the loop."""
_PIECE = 4096
"""Bytes that are read from a stream before their lines are forwarded."""
_PIECES_AT_END = 16
"""Pieces that are read when a child has exited: as much as a pipe holds."""
_RETRY = 0.02
"""Seconds until a journal that did not accept a line is tried again."""
_JOURNAL_TIMEOUT = 1.0
"""Seconds that the journal has to accept a line; after that lines are dropped until it does."""


class Stream(msgspec.Struct):
    """A pipe that is read, and the journal entries of its lines that are not forwarded yet."""

    descriptor: int
    decoder: codecs.IncrementalDecoder
    lines: EntryLines
    waiting: deque[bytes]
    pause: Call | None = None
    """Set while the pipe is not read: the call that resumes reading."""
    ended: bool = False


class Output:
    """The pipes of one child; pass `child_ends` to it, then call `close_child_ends`."""

    def __init__(self, outputs: "Outputs", journal: Journal, fields: dict[str, object]) -> None:
        """Open the pipes and read them. Raises OSError."""
        self.child_ends: tuple[int, ...] = ()
        """The descriptors that become 1 and 2 of the child."""
        self._fields = fields
        self._outputs = outputs
        self._loop = outputs.loop
        self._sender = JournalSender(self._journal_fields, journal)
        self._sender.on_loss = lambda: outputs.report_losses_later(self._sender)
        self._streams: dict[int, Stream] = {}
        try:
            for level in (logging.INFO, logging.WARNING):
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                self.child_ends = (*self.child_ends, theirs)
                decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
                waiting: deque[bytes] = deque()
                lines = EntryLines(level, self._journal_fields, waiting.append)
                self._streams[ours] = Stream(ours, decoder, lines, waiting)
                os.set_blocking(ours, False)
                self._loop.add_reader(ours, self._read, self._streams[ours])
        except OSError:
            self.close()
            raise

    def close_child_ends(self) -> None:
        """Close the master's copies of the ends that the child has now."""
        for descriptor in self.child_ends:
            os.close(descriptor)
        self.child_ends = ()

    def set_pid(self, pid: int) -> None:
        """Set the journal field OBJECT_PID of all further lines."""
        self._fields |= {"OBJECT_PID": pid}

    def drain(self) -> None:
        """Forward what the pipes hold, up to a limit, so that it is logged before the exit of the child."""
        for stream in list(self._streams.values()):
            self._forward_rest(stream)
            self._schedule(stream, 0.0)

    def close(self) -> None:
        """Forward what the pipes hold, up to a limit, and close them."""
        self.close_child_ends()
        for stream in list(self._streams.values()):
            self._forward_rest(stream)
            stream.lines.flush()
            self._forward(stream)
            self._drop(stream)
            self._end(stream)
        with contextlib.suppress(OSError):
            self._sender.report_losses()

    def _journal_fields(self) -> dict[str, object]:
        return self._fields

    def _forward_rest(self, stream: Stream) -> None:
        for _ in range(_PIECES_AT_END):
            more = self._fill(stream)
            if not self._forward(stream) or not (more or stream.waiting):
                break

    def _read(self, stream: Stream) -> None:
        self._fill(stream)
        before = len(stream.waiting)
        taken = self._forward(stream)
        if not taken and self._outputs.journal_stuck():
            self._drop(stream)
        rest = self._outputs.ratelimit.take(self._loop.time(), max(1, before - len(stream.waiting)))
        self._schedule(stream, rest if taken else max(rest, _RETRY))

    def _fill(self, stream: Stream) -> bool:
        # Read a piece once everything read before is forwarded. Return False if there is none.
        if stream.waiting or stream.ended:
            return False
        try:
            data = os.read(stream.descriptor, _PIECE)
        except BlockingIOError:
            return False
        stream.lines.write(stream.decoder.decode(data, final=not data))
        if not data:
            stream.lines.flush()
            stream.ended = True
        return bool(data)

    def _forward(self, stream: Stream) -> bool:
        # Return False when the journal accepts no more now.
        for _ in range(min(LINES_A_TURN, len(stream.waiting))):
            try:
                self._sender.send(stream.waiting[0])
            except OSError:
                return False
            stream.waiting.popleft()
            self._outputs.journal_accepted()
        return True

    def _drop(self, stream: Stream) -> None:
        if stream.waiting:
            self._sender.count_lost(len(stream.waiting))
            stream.waiting.clear()

    def _schedule(self, stream: Stream, rest: float) -> None:
        if stream.ended and not stream.waiting:
            self._end(stream)
        elif (rest or stream.waiting) and stream.pause is None:
            self._loop.remove_reader(stream.descriptor)
            stream.pause = self._loop.call_later(rest, self._resume, stream)

    def _resume(self, stream: Stream) -> None:
        stream.pause = None
        if not stream.ended:
            self._loop.add_reader(stream.descriptor, self._read, stream)
        if stream.waiting:
            self._read(stream)

    def _end(self, stream: Stream) -> None:
        del self._streams[stream.descriptor]
        self._loop.remove_reader(stream.descriptor)
        if stream.pause is not None:
            stream.pause.cancel()
        os.close(stream.descriptor)
        if not self._streams:
            self._outputs.forget(self)


class Outputs:
    """Opens the pipes of the children, and limits what they may write."""

    def __init__(self, loop: Loop, journal: Journal | None = None) -> None:
        self.loop = loop
        self.ratelimit = RateLimit(LINES)
        self._journal = journal
        self._stuck_since: float | None = None
        self._open: set[Output] = set()

    def open(self, **fields: object) -> Output | None:
        """Return pipes for a child; None if it is to inherit standard output and error of the master."""
        if not logs.uses_journal():
            return None
        try:
            return self.open_to_journal(fields)
        except OSError as error:
            logger.warning("cannot capture the output of a child: %s", error.strerror)
            return None

    def open_to_journal(self, fields: dict[str, object]) -> Output:
        """Return pipes for a child. Raises OSError."""
        self._journal = self._journal or Journal(wait=False)
        output = Output(self, self._journal, fields)
        self._open.add(output)
        return output

    def journal_accepted(self) -> None:
        """Note that the journal has accepted a line."""
        self._stuck_since = None

    def journal_stuck(self) -> bool:
        """Note that the journal has not accepted a line; return whether its time has expired."""
        now = self.loop.time()
        if self._stuck_since is None:
            self._stuck_since = now
        return now - self._stuck_since >= _JOURNAL_TIMEOUT

    def report_losses_later(self, sender: JournalSender) -> None:
        """Log the number of lost lines as soon as the journal accepts it."""
        self.loop.call_later(_JOURNAL_TIMEOUT, self._forward, sender)

    def _forward(self, sender: JournalSender) -> None:
        try:
            sender.report_losses()
        except OSError:
            self.report_losses_later(sender)

    def forget(self, output: Output) -> None:
        """Remove a closed output."""
        self._open.discard(output)

    def close(self) -> None:
        """Forward what the children have written, as far as the journal accepts it, and close."""
        if self._journal is not None:
            self._journal.wait()  # the service has ended, so waiting delays nothing
        for output in list(self._open):
            output.close()
        if self._journal is not None:
            self._journal.close()


def discard(output: Output | None) -> None:
    """Close the pipes of a child that was not started."""
    if output is not None:
        output.close()
