"""Scripts that log in a process of their own, because the configuration of logging is global to a process."""

import socket
import subprocess
import sys

from tests.logs.test_journal import parse

PRELUDE = """
import io, logging, logging.config, os, sys, time
from preforkd.logs import handlers, journal, logs
from preforkd.logs.context import set_context
journal.ADDRESS = sys.argv[1]
"""


def command(script, address="/nonexistent", *arguments):
    """Return the command that runs a script; its journal has this address."""
    return [sys.executable, "-c", PRELUDE + script, str(address), *arguments]


def run(script, address="/nonexistent", *arguments):
    """Run a script to its end and return its output."""
    return subprocess.run(
        command(script, address, *arguments), capture_output=True, text=True, check=True
    )


def bound_journal(address):
    """Return a socket in the place of journald's."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(address))
    sock.settimeout(30)
    return sock


def entries(sock, count):
    """Return this many entries that the journal has received."""
    return [parse(sock.recv(65536)) for _ in range(count)]
