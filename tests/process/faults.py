"""What tests of faults share: the faulty application's service, and looks at processes from outside."""

import contextlib
import http.client
import os
import shutil
import subprocess
from pathlib import Path

from tests.process.service import HERE, Service, children_of, free_port

TICKS = os.sysconf("SC_CLK_TCK")


def serve(
    service: Service,
    *,
    workers: int = 2,
    target: str = "wsgi:faulty:application",
    directory: str = str(HERE),
    variables: dict[str, str] | None = None,
    more: str = "",
    listen: str = "",
    threads: int = 1,
    **how,
) -> Service:
    """Start a service of the faulty application; its settings can be written anew by `settle`."""
    service.port = free_port()
    service.address = ("127.0.0.1", service.port)
    service.listen = listen or f"127.0.0.1:{service.port}"
    settle(
        service,
        workers=workers,
        target=target,
        directory=directory,
        variables=variables,
        more=more,
        threads=threads,
    )
    service.start("--config", str(service.config), **how)
    return service


def settle(
    service: Service,
    *,
    workers: int = 2,
    target: str = "wsgi:faulty:application",
    directory: str = str(HERE),
    variables: dict[str, str] | None = None,
    more: str = "",
    threads: int = 1,
) -> None:
    """Write the configuration."""
    environment = {"SCRATCH": str(service.folder), **(variables or {})}
    lines = "".join(f"    {name}: '{value}'\n" for name, value in environment.items())
    service.configure(
        f"app:\n  target: {target}\n  directory: {directory}\n  environment:\n{lines}"
        f"listen: {service.listen}\nworkers: {{count: {workers}, threads: {threads}}}\n{more}"
    )


def get(address, path: str) -> tuple[int | None, bytes]:
    """Return status and body of an answer; None when there was none, or it was cut off."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, ConnectionError):
        return None, b""
    finally:
        connection.close()


def whole_again(service: Service, workers: int, without: set[int]) -> dict:
    """Return the status when so many workers serve, none of these among them, and nobody else lives."""

    def holds(status):
        pids = {row["pid"] for row in status["workers"]}
        zygotes = {row["zygote_pid"] for row in status["generations"]}
        return (
            status["ready"] == len(pids) == workers
            and not pids & without
            and {row["zygote_state"] for row in status["generations"]} == {"ready"}
            and set(children_of(service.pid)) == pids | zygotes
        )

    return service.until(holds)


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of the CPU."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def state_of(pid: int) -> str:
    """Return the letter of a process's state, as ps shows it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def fill(send) -> None:
    """Call until nobody has room for more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            send()


LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Each byte of the file $ACCEPT_ERRORS is the errno of an accept4(2) that fails. */
int accept4(int sock, struct sockaddr *address, socklen_t *length, int flags) {
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    if (!real) real = dlsym(RTLD_NEXT, "accept4");
    const char *path = getenv("ACCEPT_ERRORS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file >= 0) {
        struct stat status;
        unsigned char number = 0;
        if (fstat(file, &status) == 0 && status.st_size > 0
            && pread(file, &number, 1, status.st_size - 1) == 1)
            (void)!ftruncate(file, status.st_size - 1);
        close(file);
        if (number) { errno = number; return -1; }
    }
    return real(sock, address, length, flags);
}

/* The file $CLOCK_OFFSET holds the seconds by which the wall clock is wrong. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    const char *path = clock == CLOCK_REALTIME ? getenv("CLOCK_OFFSET") : NULL;
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        char text[32] = {0};
        if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
        close(file);
    }
    return result;
}
"""


def library(folder: Path) -> str | None:
    """Return the path of a library to preload that makes system calls fail; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    source, made = folder / "faults.c", folder / "faults.so"
    source.write_text(LIBRARY)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True
    )
    return str(made)
