"""What the tests of the WSGI loop share: requests, an application that echoes, and waiting."""

import fcntl
import struct
import termios

GET = b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n"

CLOSE = b"Connection: close\r\n"


def echo(environ, start_response):
    """Answer with method, path and body."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    text = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + body
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text]


def read_body(answers):
    """Return the body of the next answer of a stream."""
    head = "".join(iter(lambda: answers.readline().decode(), "\r\n")).lower()
    return answers.read(int(head.partition("content-length: ")[2].split()[0]))


def unread_bytes(descriptor):
    """Return the unread bytes of a socket's input, FIONREAD."""
    return struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]
