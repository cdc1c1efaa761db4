"""slowhttptest (Debian) against a running program: it serves everybody else throughout."""

import re
import shutil
import subprocess
import threading

import pytest

from tests.process.service import ask

pytestmark = pytest.mark.skipif(
    shutil.which("slowhttptest") is None, reason="slowhttptest is not installed (Debian)"
)
CLIENTS, SECONDS = 400, 8
MODES = {
    "headers": ("-H", "-i", "1"),
    "body": ("-B", "-i", "1", "-s", "8192"),
    "read": ("-X", "-w", "64", "-y", "128", "-n", "1", "-z", "32", "-k", "2"),
}
APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", str(1 << 20))])
    return [b"x" * (1 << 20)]
"""


@pytest.mark.parametrize("mode", MODES)
def test_slow_clients_take_nothing_from_others(service, mode):
    """400 clients that send or read a few bytes a second, 2 workers: no other one is refused or kept waiting."""
    _, port = service.serve("large", APPLICATION, "workers: 2", "wsgi:large:application")
    sizes, failures, stop = [], [], threading.Event()

    def come_and_go():
        while not stop.is_set():
            try:
                sizes.append(len(ask(("127.0.0.1", port)).partition(b"\r\n\r\n")[2]))
            except OSError as error:
                failures.append(error)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        attack = subprocess.run(
            ["slowhttptest", *MODES[mode], "-c", str(CLIENTS), "-r", "200", "-l", str(SECONDS),
             "-p", "30", "-u", f"http://127.0.0.1:{port}/"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        stop.set()
        other.join(60)
    assert not other.is_alive()
    said = re.sub(r"\x1b\[[0-9;]*m", "", attack.stdout)
    connected = [int(count) for count in re.findall(r"connected: +(\d+)", said)]
    assert max(connected, default=0) > CLIENTS // 2, said
    assert set(re.findall(r"service available: +(\w+)", said)) == {"YES"}, said
    assert not failures
    assert set(sizes) == {1 << 20}
    assert service.status()["ready"] == 2
