"""The system refuses something: processes, threads, descriptors, connections, room on a disk."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.process.faults import cpu_seconds, descriptors, get, library, serve, whole_again
from tests.process.load import Load
from tests.process.service import Service, children_of, free_port

USER = (
    61000 + os.getpid() % 4000
)  # nobody's, so that the limit on its processes is this test's alone
ROOT = os.geteuid() == 0


@pytest.fixture
def unprivileged(request):
    """A service that runs as a user without privileges, in a folder of his."""
    as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    if not ROOT or not shutil.which("setpriv"):
        pytest.skip("becoming another user needs root and setpriv")
    probe = [*as_user, sys.executable, "-c", "import preforkd.cli.preforkd"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("another user cannot read this checkout")
    folder = Path(tempfile.mkdtemp(prefix="preforkd-"))
    folder.chmod(0o777)
    service = Service(folder)
    service.as_user = as_user
    (folder / "notify").chmod(0o777)
    yield service
    try:
        service.finish(request.node)
    finally:
        shutil.rmtree(folder)


def limit_processes(pid, count):
    """Set the soft limit of processes that this process's user may have; None: back to the hard one."""
    as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    command = [*as_user, "prlimit", "--pid", str(pid)]
    if count is None:
        shown = [*command, "--nproc", "--raw", "--noheadings", "--output", "HARD"]
        count = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([*command, f"--nproc={count}:"], check=True)


def limit_descriptors(pid, count):
    """Set the soft limit of descriptors; None: back to the hard one."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard if count is None else count, hard))


def test_a_fork_that_is_refused(unprivileged):
    """EAGAIN: the other worker serves, the log names it, tries are delayed, and it is made up for."""
    service = serve(unprivileged, command=unprivileged.as_user)
    limit_processes(service.zygote(), 1)
    victim = service.workers()[0]
    os.kill(victim, signal.SIGKILL)
    service.until(lambda _: "2 consecutive start failures" in service.log)
    assert "fork: Resource temporarily unavailable" in service.log
    assert get(service.address, "/?id=1")[0] == 200
    problems = " ".join(service.status()["problems"])
    assert "fork: Resource temporarily unavailable" in problems
    limit_processes(service.zygote(), None)
    whole_again(service, 2, {victim})


def test_a_zygote_that_is_refused(unprivileged):
    """EAGAIN in the master: a reload is refused as the system's fault, and a lost zygote comes back."""
    service = serve(unprivileged, command=unprivileged.as_user)
    before = set(service.workers())
    limit_processes(service.pid, 1)
    answer = service.control("reload", "--fresh")
    assert answer.returncode == 71, answer.stderr
    assert "Resource temporarily unavailable" in answer.stderr
    assert "Python" not in answer.stderr
    os.kill(service.zygote(), signal.SIGKILL)
    service.until(lambda _: "2 consecutive start failures" in service.log)
    assert get(service.address, "/?id=1")[0] == 200
    limit_processes(service.pid, None)
    whole_again(service, 2, set())
    assert set(service.workers()) == before


def test_a_thread_that_is_refused(unprivileged):
    """A worker that gets no thread of its own serves without: no request is lost."""
    service = serve(unprivileged, command=unprivileged.as_user)
    for pid in service.workers():
        limit_processes(pid, 1)
    with Load(service.address, rate=100) as load:
        load.wait_for(50)
    assert load.result.lost == 0, load.result.bad
    assert "can't start new thread" in service.log


def test_threads_of_the_application_that_are_refused(unprivileged):
    """With workers.threads, those that there are serve; without any, the worker itself does."""
    service = serve(unprivileged, command=unprivileged.as_user, more="", threads=4, workers=1)
    (worker,) = service.workers()
    limit_processes(worker, 1)
    with Load(service.address, rate=100) as load:
        load.wait_for(50)
    assert load.result.lost == 0, load.result.bad


def test_no_descriptor_for_a_connection(service):
    """EMFILE: connections wait in the kernel's queue, nobody spins, and all are answered later."""
    serve(service)
    workers = service.workers()
    for pid in workers:
        limit_descriptors(pid, 3)
    answers = []
    clients = [
        threading.Thread(target=lambda: answers.append(get(service.address, "/?id=1")))
        for _ in range(8)
    ]
    for client in clients:
        client.start()
    service.until(lambda _: service.log.count("Too many open files; pausing") >= 2)
    spent = [cpu_seconds(pid) for pid in workers]
    begun = time.monotonic()
    service.until(lambda _: service.log.count("Too many open files; pausing") >= 6)
    passed = time.monotonic() - begun
    for pid, before in zip(workers, spent, strict=True):
        assert cpu_seconds(pid) - before < passed / 2
    assert not answers
    for pid in workers:
        limit_descriptors(pid, None)
    for client in clients:
        client.join()
    assert [status for status, _ in answers] == [200] * 8
    assert set(service.workers()) == set(workers)


def test_no_descriptor_for_the_master(service):
    """EMFILE in the master: it does not spin for a client that waits, and goes on afterwards."""
    serve(service)
    limit_descriptors(service.pid, 3)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(service.folder / "io.preforkd.Manager"))
        spent, begun = cpu_seconds(service.pid), time.monotonic()
        victim = children_of(service.pid)[-1]
        os.kill(victim, signal.SIGKILL)
        while "Too many open files" not in service.log or time.monotonic() < begun + 2:
            assert time.monotonic() < begun + 20, service.log
            service.manager.listen(0.1)
        assert cpu_seconds(service.pid) - spent < (time.monotonic() - begun) / 2
        assert get(service.address, "/?id=1")[0] == 200
        limit_descriptors(service.pid, None)
    whole_again(service, 2, {victim})


@pytest.fixture
def preloaded(service, tmp_path):
    """The variables that make accept4(2) of the workers fail, and the file that says how."""
    path = library(tmp_path)
    if path is None:
        pytest.skip("no C compiler")
    errors = tmp_path / "errors"
    service.errors = errors
    service.variables = {"LD_PRELOAD": path, "ACCEPT_ERRORS": str(errors)}
    return service


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_the_system_has_nothing_left_for_a_connection(preloaded, number):
    """ENFILE and the like: accepting pauses, nobody spins, and the connection is served afterwards."""
    service = serve(preloaded, workers=1, variables=preloaded.variables)
    (worker,) = service.workers()
    preloaded.errors.write_bytes(bytes([number]) * 3)
    spent, begun = cpu_seconds(worker), time.monotonic()
    assert get(service.address, "/?id=1")[0] == 200
    passed = time.monotonic() - begun
    assert cpu_seconds(worker) - spent < passed / 2
    assert not preloaded.errors.read_bytes()
    assert service.log.count(f"{os.strerror(number)}; pausing") == 3


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EINTR])
def test_a_connection_that_has_gone_before_it_is_accepted(preloaded, number):
    """ECONNABORTED and what else accept(2) passes on of the connection: the next one is served."""
    service = serve(preloaded, workers=1, variables=preloaded.variables)
    preloaded.errors.write_bytes(bytes([number]) * 5)
    assert get(service.address, "/?id=1")[0] == 200
    assert not preloaded.errors.read_bytes()
    assert "pausing" not in service.log


def test_clients_that_reset_their_connections(service):
    """500 connections that are reset at once, before and after their request: others are served."""
    serve(service)
    with Load(service.address, keep_alive=2, fresh=2, rate=100) as load:
        for number in range(500):
            with socket.create_connection(service.address) as sock:
                if number % 2:
                    sock.sendall(b"GET /?id=0 HTTP/1.1\r\nHost: x\r\n\r\n")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        load.wait_for(20)
    assert load.result.lost == 0, load.result.bad
    assert "Traceback" not in service.log, service.log
    service.until(lambda status: sum(row["connections"] for row in status["workers"]) == 0)


def test_a_full_accept_queue(service):
    """With room for one connection in the queue and nobody idle, 12 clients wait, and all are answered."""
    serve(service, workers=1)
    service.configure(
        service.config.read_text().replace(
            f"listen: {service.listen}", f"listen: {{address: '{service.listen}', backlog: 1}}"
        )
    )
    assert service.control("reload").returncode == 0
    answers = []
    clients = [
        threading.Thread(target=lambda: answers.append(get(service.address, "/slow?for=0.1")))
        for _ in range(12)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [status for status, _ in answers] == [200] * 12


def test_a_full_disk_below_the_spool_directory(service, tmp_path):
    """A body that cannot be stored is refused with 503; small ones and other requests are served."""
    spool = tmp_path / "spool"
    spool.mkdir()
    shell = f'mount -t tmpfs -o size=256k tmpfs {spool} && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", shell, "sh")
    if not ROOT or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace of one's own needs root")
    serve(
        service,
        workers=1,
        variables={"TMPDIR": str(spool)},
        more="http: {spool: 16K}\n",
        command=command,
    )

    def post(size):
        with socket.create_connection(service.address, timeout=30) as sock:
            head = f"POST /?id=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n"
            sock.sendall(head.encode() + b"\r\n")
            with contextlib.suppress(OSError):  # the refusal may come before all was sent
                sock.sendall(b"x" * size)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := sock.recv(65536):
                    answer += piece
            return answer.split(b"\r\n")[0]

    assert b" 200 " in post(100_000)
    for _ in range(3):
        assert b" 503 " in post(1_000_000)
        assert b" 200 " in post(1000)
        assert b" 200 " in post(100_000)
    assert "cannot spool a request body: No space left on device" in service.log
    (worker,) = service.workers()
    assert descriptors(worker) < 30


@pytest.mark.parametrize("most", [5, 6, 7, 8, 9, 10, 12, 16, 20])
def test_too_few_descriptors_to_start(service, most):
    """However few: the system is to blame, a hint says which limit, and there is no traceback."""
    port = free_port()
    service.configure(f"listen: 127.0.0.1:{port}\nworkers: 4\ntimeouts: {{start: 3s}}\n")
    shell = f'ulimit -n {most}; exec "$@"'
    service.start("--config", str(service.config), command=("sh", "-c", shell, "sh"), ready=False)
    assert service.wait() == 71
    assert "Too many open files" in service.log
    assert "LimitNOFILE=" in service.log
    assert "Traceback" not in service.log
