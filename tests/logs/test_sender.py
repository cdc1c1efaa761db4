"""The connection to the journal: lines that are lost are counted and reported."""

import subprocess
import threading

from preforkd.logs.sender import JournalSender
from tests.logs.processes import bound_journal, command, entries
from tests.logs.test_journal import parse


class FullJournal:
    """Takes no encoded entry, but reports of losses."""

    def __init__(self):
        self.reports = []

    def send_encoded(self, _entry):
        raise BlockingIOError

    def send(self, fields):
        self.reports.append(fields)


def test_losses_are_counted_once_and_named_by_the_process():
    """``on_loss`` is called for the first line only; the report resets the count."""
    for fields, process in (
        ({}, "the master"),
        ({"PREFORKD_GENERATION": 2}, "the zygote of generation 2"),
        ({"PREFORKD_GENERATION": 2, "PREFORKD_WORKER": 3}, "worker 3"),
    ):
        journal, calls = FullJournal(), []
        sender = JournalSender(lambda fields=fields: fields, journal)
        sender.on_loss = lambda calls=calls: calls.append(1)
        sender.count_lost(2)
        sender.count_lost(3)
        assert calls == [1]
        sender.report_losses()
        sender.report_losses()
        (report,) = journal.reports
        assert report["MESSAGE"] == f"5 lines of {process} were lost: the journal did not take them"
        assert report["PREFORKD_MISSED"] == 5
        assert sender.lost == 0
        sender.submit(b"MESSAGE=lost\n")
        assert (sender.lost, calls) == (1, [1, 1])


STUCK = """
logs.configure("info", "journal")
logs.renew_after_fork()
set_context(worker=3)
logs.capture_output()
for number in range(2000):
    logging.getLogger("preforkd").info("record %d", number)
    print("printed", number)
os.write(2, b"burst over\\n")
sys.stdin.read(1)
"""


def test_a_stuck_journal_does_not_stop_a_worker(tmp_path):
    """Records and prints wait a second in total, then are dropped; the loss is reported without a new record."""
    with (
        bound_journal(tmp_path / "socket") as sock,
        subprocess.Popen(
            command(STUCK, tmp_path / "socket"),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        assert child.stderr.readline() == "burst over\n"
        received = entries(sock, 1)
        while "PREFORKD_MISSED" not in received[-1]:
            received += entries(sock, 1)
        child.communicate("x")
        assert child.returncode == 0
    last = received.pop()
    assert received[0]["MESSAGE"].endswith("record 0")
    lost = 4000 - len(received)
    assert lost > 1000
    assert last["MESSAGE"] == f"{lost} lines of worker 3 were lost: the journal did not take them"
    assert last["PREFORKD_WORKER"] == "3"


BURST = """
logs.configure("info", "journal")
logs.renew_after_fork()
logs.capture_output()
for number in range(3000):
    logging.getLogger("preforkd").info("record %d", number)
    print("printed", number)
"""


def test_a_slow_journal_loses_nothing(tmp_path):
    """A journal that reads, slower than lines are written, receives every one."""
    received = []

    def read(sock):
        while entry := sock.recv(65536):
            received.append(entry)

    with bound_journal(tmp_path / "socket") as sock:
        sock.settimeout(None)
        reader = threading.Thread(target=read, args=(sock,))
        reader.start()
        try:
            subprocess.run(command(BURST, tmp_path / "socket"), check=True)
        finally:
            sock.sendto(b"", str(tmp_path / "socket"))  # behind all that it has sent
            reader.join()
    assert len(received) == 6000
    assert parse(received[-1])["MESSAGE"] == "printed 2999"
