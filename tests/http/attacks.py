"""Requests that a server must refuse, and some that look alike and must be answered.

Written from RFC 9110, RFC 9112 and RFC 6455 and from the published weaknesses of other servers. A row is what
a client sends, and the statuses of the answers in their order. The server's own refusal is always the last; a
dot means that the connection ends behind the last answer, too. Where ASGI answers differently, the row has its
statuses and the reason.
"""

from typing import NamedTuple

G = b"GET / HTTP/1.1\r\nHost: h\r\n"
P = b"POST / HTTP/1.1\r\nHost: h\r\n"
TE = P + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n"
GET, OLD = G + END, b"GET / HTTP/1.0\r\n"

WHY = "a WSGI application has no WebSockets: it answers as if nothing was proposed, RFC 9110, section 7.8"


class Row(NamedTuple):
    """A line of the table."""

    name: str
    data: bytes
    expected: str
    asgi: str = ""
    why: str = ""


def _line(line):
    return line + b"\r\nHost: h\r\n\r\n"


def _header(header, start=G):
    return start + header + b"\r\n\r\n"


REQUEST_LINES = [
    ("no version", _line(b"GET /"), "400"),
    ("HTTP/0.9", b"GET /\r\n\r\n", "400"),
    ("HTTP/2.0", _line(b"GET / HTTP/2.0"), "505"),
    ("HTTP/3.0", _line(b"GET / HTTP/3.0"), "505"),
    ("HTTP/1.2", _line(b"GET / HTTP/1.2"), "200"),
    ("HTTP/0.9 named", _line(b"GET / HTTP/0.9"), "505"),
    ("HTTP/1.10", _line(b"GET / HTTP/1.10"), "400"),
    ("HTTP/11", _line(b"GET / HTTP/11"), "400"),
    ("HTTP/1", _line(b"GET / HTTP/1"), "400"),
    ("HTTP/01.1", _line(b"GET / HTTP/01.1"), "400"),
    ("HTTP/1.1 with a blank behind", _line(b"GET / HTTP/1.1 "), "400"),
    ("http/1.1", _line(b"GET / http/1.1"), "400"),
    ("HTTPS/1.1", _line(b"GET / HTTPS/1.1"), "400"),
    ("XHTTP/1.1", _line(b"GET / XHTTP/1.1"), "400"),
    ("HTTP/+1.1", _line(b"GET / HTTP/+1.1"), "400"),
    ("HTTP/1.1 then more", _line(b"GET / HTTP/1.1 HTTP/1.1"), "400"),
    ("RTSP", _line(b"GET / RTSP/1.0"), "400"),
    ("a blank in the target", _line(b"GET /a b HTTP/1.1"), "400"),
    ("two blanks before the target", _line(b"GET  / HTTP/1.1"), "400"),
    ("two blanks before the version", _line(b"GET /  HTTP/1.1"), "400"),
    ("a tab before the target", _line(b"GET\t/ HTTP/1.1"), "400"),
    ("a tab before the version", _line(b"GET /\tHTTP/1.1"), "400"),
    ("a vertical tab", _line(b"GET /\x0bHTTP/1.1"), "400"),
    ("a form feed", _line(b"GET\x0c/ HTTP/1.1"), "400"),
    ("no target", _line(b"GET HTTP/1.1"), "400"),
    ("an empty target", _line(b"GET  HTTP/1.1"), "400"),
    ("no method", _line(b" / HTTP/1.1"), "400"),
    ("a blank before the method", _line(b" GET / HTTP/1.1"), "400"),
    ("a tab before the method", _line(b"\tGET / HTTP/1.1"), "400"),
    ("a NUL before the method", _line(b"\0GET / HTTP/1.1"), "400"),
    ("a byte order mark", _line(b"\xef\xbb\xbfGET / HTTP/1.1"), "400"),
    ("a method in small letters", _line(b"get / HTTP/1.1"), "400"),
    ("a method with a colon", _line(b"GET: / HTTP/1.1"), "400"),
    ("a method with a NUL", _line(b"GE\0T / HTTP/1.1"), "400"),
    ("a method in brackets", _line(b"(GET) / HTTP/1.1"), "400"),
    ("a method of 33 letters", _line(b"A" * 33 + b" / HTTP/1.1"), "400"),
    ("a method that nobody knows", _line(b"BREW / HTTP/1.1"), "501"),
    ("CONNECT", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
    ("CONNECT with a path", _line(b"CONNECT / HTTP/1.1"), "501"),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    ("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
    ("a NUL in the target", _line(b"GET /\0 HTTP/1.1"), "400"),
    ("a bell in the target", _line(b"GET /\x07 HTTP/1.1"), "400"),
    ("DEL in the target", _line(b"GET /\x7f HTTP/1.1"), "400"),
    ("raw bytes above 127 in the target", _line(b"GET /\xc3\xa4 HTTP/1.1"), "400"),
    ("a CR in the target", _line(b"GET /\rX HTTP/1.1"), "400"),
    ("an LF in the target", _line(b"GET /\nX HTTP/1.1"), "400"),
    ("a fragment", _line(b"GET /#x HTTP/1.1"), "400"),
    ("%00", _line(b"GET /a%00b HTTP/1.1"), "400"),
    ("a percent sign alone", _line(b"GET /a% HTTP/1.1"), "400"),
    ("a percent sign and no hex", _line(b"GET /a%zz HTTP/1.1"), "400"),
    ("a percent sign cut off", _line(b"GET /a%4 HTTP/1.1"), "400"),
    ("a relative target", _line(b"GET a HTTP/1.1"), "400"),
    ("a target of an authority", _line(b"GET h:80 HTTP/1.1"), "400"),
    ("* for GET", _line(b"GET * HTTP/1.1"), "400"),
    ("** for OPTIONS", _line(b"OPTIONS ** HTTP/1.1"), "400"),
    ("another scheme", _line(b"GET ftp://h/ HTTP/1.1"), "400"),
    ("file:", _line(b"GET file:///etc/passwd HTTP/1.1"), "400"),
    ("a URL without authority", _line(b"GET http:///x HTTP/1.1"), "400"),
    ("a URL with a user", _line(b"GET http://u@h/x HTTP/1.1"), "400"),
    ("a URL with a bad port", _line(b"GET http://h:x/ HTTP/1.1"), "400"),
    ("a URL with a port too high", _line(b"GET http://h:65536/ HTTP/1.1"), "400"),
    ("bare LF behind the line", b"GET / HTTP/1.1\nHost: h\r\n\r\n", "400"),
    ("bare CR behind the line", b"GET / HTTP/1.1\rHost: h\r\n\r\n", "400"),
    ("CR CR LF behind the line", b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", "400"),
    ("LF CR behind the line", b"GET / HTTP/1.1\n\rHost: h\r\n\r\n", "400"),
    ("a line that is too long", b"GET /" + b"a" * 600 + b" HTTP/1.1\r\nHost: h\r\n\r\n", "414"),
    ("a line without an end", b"GET /" + b"a" * 2000, "414"),
    ("two empty lines before", b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "200"),
    ("a bare LF before", b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
    ("a bare CR before", b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
]
HOSTS = [
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", "400"),
    ("no Host, but others", b"GET / HTTP/1.1\r\nX: y\r\n\r\n", "400"),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    ("the same Host twice", b"GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n", "400"),
    ("two Hosts, HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    *(
        (f"Host {host!r}", b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host, "400")
        for host in (
            b"a b", b"a,b ", b"a/b", b"a?b", b"a#b", b"u@a", b"a:b", b"a:80:80", b"a:65536", b"a:-1",
            b"a:123456", b"[::1", b"::1", b"[::g]", b"[1.2.3.4]", b"[]", b"a\tb", b"a\\b", b"a%zz", b"<a>", b'"a"', b"\xe4",
            b"a|b", b"a^b", b"http://a",
        )
        if host != b"a,b "
    ),
    ("a list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "400"),
]  # fmt: skip
FIELDS = [
    ("a blank before the colon", _header(b"X : y"), "400"),
    ("a tab before the colon", _header(b"X\t: y"), "400"),
    ("a blank in a name", _header(b"X Y: z"), "400"),
    ("no name", _header(b": y"), "400"),
    ("no colon", _header(b"X"), "400"),
    ("a blank before a name", _header(b" X: y"), "400"),
    ("the first header begins with a blank", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", "400"),
    ("folding by a blank", _header(b"X: y\r\n z"), "400"),
    ("folding by a tab", _header(b"X: y\r\n\tz"), "400"),
    ("folding of nothing", _header(b"X:\r\n \r\nY: z"), "400"),
    ("a name with a NUL", _header(b"X\0: y"), "400"),
    ("a name above 127", _header(b"\xe4: y"), "400"),
    *((f"a name with {c!r}", _header(b"X" + c + b"Y: z"), "400")
      for c in (b"(", b")", b"<", b">", b"@", b",", b";", b"\\", b'"', b"/", b"[", b"]", b"?", b"=", b"{", b"}", b"\x7f")),
    ("a NUL in a value", _header(b"X: a\0b"), "400"),
    ("a CR in a value", _header(b"X: a\rb"), "400"),
    ("an LF in a value", _header(b"X: a\nb"), "400"),
    ("an LF and a header in a value", _header(b"X: a\nContent-Length: 5"), "400"),
    ("a CR and a header in a value", _header(b"X: a\rContent-Length: 5"), "400"),
    ("a bell in a value", _header(b"X: a\x07"), "400"),
    ("an escape in a value", _header(b"X: \x1b[0m"), "400"),
    ("DEL in a value", _header(b"X: \x7f"), "400"),
    ("a value that ends in CR", _header(b"X: a\r"), "400"),
    ("the end is LF LF", b"GET / HTTP/1.1\r\nHost: h\n\n", "400"),
    ("a header ends in bare LF", b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", "400"),
    ("the end is CR LF LF", b"GET / HTTP/1.1\r\nHost: h\r\n\nX: y\r\n\r\n", "400"),
    ("the end is LF CR LF", b"GET / HTTP/1.1\r\nHost: h\n\r\n\r\n", "400"),
    ("a header that is too large", _header(b"X: " + b"a" * 800), "431"),
    ("headers that are too large", _header(b"X: " + b"a" * 300 + b"\r\nY: " + b"a" * 300 + b"\r\nZ: " + b"a" * 500), "431"),
    ("too many headers", _header(b"A: b\r\n" * 21 + b"B: c"), "431"),
    ("headers without an end", G + b"A: bcdef\r\n" * 300, "431"),
    ("Content_Length", _header(b"Content_Length: 5", P), "400"),
    ("Transfer_Encoding", _header(b"Transfer_Encoding: chunked", P), "400"),
    ("X_Forwarded_For", _header(b"X_Forwarded_For: 1.2.3.4"), "400"),
    ("a twin by an underscore", _header(b"X-A: 1\r\nX_A: 2"), "400"),
    ("a twin by an underscore, before", _header(b"X_A: 2\r\nX-A: 1"), "400"),
    ("a lone name with an underscore", _header(b"X_Lone: 2"), "200"),
    ("an expectation that nobody has", _header(b"Expect: miracles"), "417"),
    ("two expectations", _header(b"Expect: 100-continue\r\nExpect: 100-continue", P), "417"),
    ("an upgrade", _header(b"Connection: Upgrade\r\nUpgrade: websocket"), "200", "426", WHY),
    ("an upgrade to h2c", _header(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"), "200"),
]  # fmt: skip
LENGTHS = [
    ("the same length twice", _header(b"Content-Length: 3\r\nContent-Length: 3", P) + b"abc", "400"),
    ("two lengths", _header(b"Content-Length: 3\r\nContent-Length: 4", P) + b"abcd", "400"),
    ("a length and a coding", _header(b"Content-Length: 3\r\nTransfer-Encoding: chunked", P) + b"0\r\n\r\n", "400"),
    ("a coding and a length", _header(b"Transfer-Encoding: chunked\r\nContent-Length: 3", P) + b"0\r\n\r\n", "400"),
    ("a length of 0 and a coding", _header(b"Content-Length: 0\r\nTransfer-Encoding: chunked", P) + b"0\r\n\r\n", "400"),
    ("a length and identity", _header(b"Content-Length: 3\r\nTransfer-Encoding: identity", P) + b"abc", "400"),
    *((f"Content-Length: {text!r}", _header(b"Content-Length: " + text, P) + b"abc", "400")
      for text in (b"", b"-1", b"+3", b"0x3", b"3.0", b"3e0", b"3,3", b"3, 3", b"3 3", b"three", b"3;", b"'3'", b'"3"', b"3\t4",
                   b"\xb2", b"1_0", b"-0", b"NaN", b"3\x0b")),
    ("a length beyond all bounds", _header(b"Content-Length: 99999999999999999999999", P), "413"),
    ("a length of 2**64 + 3", _header(b"Content-Length: 18446744073709551619", P) + b"abc", "413"),
    ("a length above the limit", _header(b"Content-Length: 1001", P), "413"),
    ("a blank before the colon of a length", _header(b"Content-Length : 3", P) + b"abc", "400"),
    ("folding in a length", _header(b"Content-Length:\r\n 3", P) + b"abc", "400"),
    ("a length for GET", _header(b"Content-Length: 3", G) + b"abc", "200"),
    ("leading zeros", _header(b"Content-Length: 0003", P) + b"abc", "200"),
]  # fmt: skip
CODINGS = [
    *((f"Transfer-Encoding: {text!r}", _header(b"Transfer-Encoding: " + text, P) + b"0\r\n\r\n", "400")
      for text in (b"", b"gzip", b"chunked, gzip", b"chunked, chunked", b"xchunked", b"chunkedx", b"chunked;", b"identity",
                   b"chunked, identity", b'"chunked"', b"'chunked'", b"chunked,", b",chunked", b"chun ked", b"cow",
                   b"\x0bchunked", b"chunked\x00", b"chunked\x0b", b"chunked;q=1", b"[chunked]")),
    *((f"Transfer-Encoding: {text!r}", _header(b"Transfer-Encoding: " + text, P) + b"0\r\n\r\n", "501")
      for text in (b"gzip, chunked", b"identity, chunked", b"gzip;q=1 , chunked")),
    ("two codings", _header(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", P) + b"0\r\n\r\n", "400"),
    ("two codings, one unknown", _header(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", P) + b"0\r\n\r\n", "400"),
    ("two codings, one unknown, first", _header(b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", P) + b"0\r\n\r\n", "501"),
    ("a blank before the colon of a coding", _header(b"Transfer-Encoding : chunked", P) + b"0\r\n\r\n", "400"),
    ("a coding with folding", _header(b"Transfer-Encoding:\r\n chunked", P) + b"0\r\n\r\n", "400"),
    ("a coding behind a bare LF", _header(b"X: y\nTransfer-Encoding: chunked", P) + b"0\r\n\r\n", "400"),
    ("a coding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ("a coding with a vertical tab before the colon", _header(b"Transfer-Encoding\x0b: chunked", P) + b"0\r\n\r\n", "400"),
    ("Chunked", _header(b"Transfer-Encoding: Chunked", P) + b"0\r\n\r\n", "200"),
    ("a tab before chunked", _header(b"Transfer-Encoding:\tchunked", P) + b"0\r\n\r\n", "200"),
]  # fmt: skip
CHUNKS = [
    *((f"chunks {data!r}", TE + data, "400") for data in (
        b"-1\r\na\r\n0\r\n\r\n", b"+1\r\na\r\n0\r\n\r\n", b"0x1\r\na\r\n0\r\n\r\n", b" 1\r\na\r\n0\r\n\r\n", b"1 \r\na\r\n0\r\n\r\n",
        b"1\t\r\na\r\n0\r\n\r\n", b"1\na\r\n0\r\n\r\n", b"1\ra\r\n0\r\n\r\n", b"1\r\r\na\r\n0\r\n\r\n", b"1_1\r\na\r\n0\r\n\r\n",
        b"\r\n", b"g\r\n", b"1;\r\na\r\n0\r\n\r\n", b"1;a=\r\na\r\n0\r\n\r\n", b"1;a\nb\r\na\r\n0\r\n\r\n", b"1;a\rb\r\na\r\n0\r\n\r\n",
        b"1;\0\r\na\r\n0\r\n\r\n", b"1\r\nab\r\n0\r\n\r\n", b"1\r\na\n0\r\n\r\n", b"1\r\na\r0\r\n\r\n", b"1\r\na0\r\n\r\n", b"3\r\nab\r\n0\r\n\r\n",
        b"0\r\nX : y\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX: \0\r\n\r\n", b"0\r\nX: y\n\r\n", b"0\n\r\n",
        b"10000000000000001\r\na\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"\xb9\r\na\r\n0\r\n\r\n", b"1,1\r\na\r\n0\r\n\r\n", b"1.0\r\na\r\n0\r\n\r\n",
        b"1;" + b"a" * 400 + b"\r\n", b"00000000000000000000001\r\na\r\n0\r\n\r\n",
    )),
    ("a chunk above the limit", TE + b"3E9\r\n" + b"x" * 1001, "413"),
    ("chunks above the limit", TE + (b"fa\r\n" + b"x" * 250 + b"\r\n") * 5, "413"),
    ("too many trailers", TE + b"0\r\n" + b"A: b\r\n" * 21 + b"\r\n", "431"),
    ("an extension", TE + b'1;a=b;c="d"\r\nx\r\n0\r\n\r\n', "200"),
    ("a trailer", TE + b"0\r\nContent-Length: 9\r\n\r\n", "200"),
]  # fmt: skip

CONTROLS = (b"\0", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\x7f", b"\x80", b"\xff", b"\r", b"\n", b" ", b"\t")  # fmt: skip
CONTROLLED_LINES = [
    (f"{control!r} {place}", _line(line.replace(b"?", control)), "400")
    for control in CONTROLS
    for place, line in (
        ("within the method", b"G?ET / HTTP/1.1"),
        ("within the target", b"GET /a?b HTTP/1.1"),
        ("before the version", b"GET / ?HTTP/1.1"),
        ("within the version", b"GET / HTTP/1?.1"),
    )
]  # fmt: skip
VERSIONS = [
    *((f"version 1.{minor}", _line(b"POST / HTTP/1.%d" % minor), "200") for minor in range(3, 10)),
    *((f"version {number!r}", _line(b"GET / HTTP/" + number), "505") for number in (b"0.0", b"0.1", b"2.1", b"4.0", b"9.9")),
    *((f"version {number!r}", _line(b"GET / HTTP/" + number), "400") for number in (b"", b".", b"1.", b".1", b"1,1", b"1.1.1", b"x.y", b"1.1a", b"11.1")),
]  # fmt: skip
METHODS = [
    *((f"method {method!r}", _line(method + b" / HTTP/1.1"), "200")
      for method in (b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND", b"MKCOL", b"COPY", b"MOVE",
                     b"LOCK", b"UNLOCK", b"SEARCH", b"REPORT", b"PURGE", b"LINK", b"M-SEARCH", b"QUERY")),
    *((f"method {method!r}", _line(method + b" / HTTP/1.1"), "501")
      for method in (b"FOO", b"GETX", b"GE", b"DESCRIBE", b"PLAY", b"SETUP", b"G-T", b"A" * 32)),
    *((f"method {method!r}", _line(method + b" / HTTP/1.1"), "400") for method in (b"Get", b"gET", b"post", b"!", b"12")),
    *((f"* for {method!r}", _line(method + b" * HTTP/1.1"), "400") for method in (b"HEAD", b"POST", b"PUT", b"TRACE", b"DELETE")),
    ("* for OPTIONS", _line(b"OPTIONS * HTTP/1.1"), "200"),
    *((f"CONNECT {target!r}", _line(b"CONNECT " + target + b" HTTP/1.1"), "501") for target in (b"h:80", b"[::1]:80", b"http://h/", b"*")),
]  # fmt: skip
TARGETS = [
    *((f"target {target!r}", _line(b"GET " + target + b" HTTP/1.1"), "200")
      for target in (b"//", b"//x//y", b"/a;b=c", b"/?", b"/?a=b?c", b"/%41%7e", b"/../..", b"/'()*!$&+,:@~", b"http://h", b"http://h/",
                     b"HTTPS://h:8/x?y", b"http://[::1]:8/", b"http://[v1.a]/", b"http://h?x", b"/http://other/", b"/*")),
    *((f"target {target!r}", _line(b"GET " + target + b" HTTP/1.1"), "400")
      for target in (b"?", b".", b"..", b"#", b"/a#", b"http:", b"http:/", b"http://", b"http:///", b"http://?x", b"http://:80/",
                     b"http://[::1", b"http://[fe80::1%25a]/", b"http://h:1:2/", b"http://a@h/", b"http://h%/", b"http://h\\x/", b"ws://h/",
                     b"urn:x", b"//h/%", b"/%0", b"/%G0", b"/%2", b"/%%41", b"/%u0041", b"/x%00", b"mailto:a@b", b"javascript://h/")),
]  # fmt: skip
HOST_FORMS = {
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: %b\r\n\r\n",
    "a URL": b"GET http://a/ HTTP/1.1\r\nHost: %b\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\nX: y\r\nhost:%b\r\nContent-Length: 0\r\n\r\n",
}
MORE_HOSTS = [
    *((f"Host {host!r}, {form}", data % host, "400") for form, data in HOST_FORMS.items()
      for host in (b"", b" ", b"u@a", b"a b", b"a, b", b"[::1", b"[fe80::1%25eth0]", b"a:99999", b"a/b", b"\xff", b"a?b", b"[v.x]", b":80")),
    *((f"Host {host!r}", b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host, "200")
      for host in (b"h:80", b"h:", b"[::1]", b"[::1]:80", b"[v1.x]", b"[vF.a:b]:1", b"a_b", b"%41", b"1.2.3.4:65535", b"a..b", b"-", b"\th\t ",
                   b"a,b", b"a;b")),
    ("no Host, HTTP/1.0", OLD + END, "200."),
    ("a URL and no Host", b"GET http://a/ HTTP/1.1\r\n\r\n", "400"),
]  # fmt: skip
FIELD_NAMES = {
    b"Host": b"h", b"Content-Length": b"3", b"Transfer-Encoding": b"chunked", b"Connection": b"close", b"Expect": b"100-continue",
    b"Upgrade": b"x", b"Cookie": b"a=b", b"Trailer": b"x", b"Forwarded": b"for=1.1.1.1",
}  # fmt: skip
MALFORMATIONS = {
    "a blank before the colon": b"N : V", "a tab before the colon": b"N\t: V", "a blank before the name": b" N: V", "folded": b"N:\r\n V",
    "an empty folded line behind": b"N: V\r\n\t", "a NUL behind": b"N: V\0", "a bare CR behind": b"N: V\rX: y", "a bare LF behind": b"N: V\nX: y",
    "a vertical tab before": b"N: \x0bV", "no colon": b"N V", "a NUL in the name": b"\0N: V", "DEL behind": b"N: V\x7f",
}  # fmt: skip
MALFORMED_FIELDS = [
    (f"{name.decode()}: {how}",
     _header(form.replace(b"N", name).replace(b"V", value), b"POST / HTTP/1.1\r\n" if name == b"Host" else P) + b"abc", "400")
    for name, value in FIELD_NAMES.items() for how, form in MALFORMATIONS.items()
]  # fmt: skip
UNDERSCORED = [
    (f"{name.decode()} by an underscore", _header(name.replace(b"-", b"_") + b": 1"), "400")
    for name in (b"Content-Type", b"content-length", b"Transfer-Encoding", b"Proxy-Authorization", b"Remote-User", b"X-Forwarded-Proto",
                 b"X-Forwarded-Host", b"X-Forwarded-Port", b"X-Forwarded-Prefix", b"X-Real-IP")
]  # fmt: skip
BODIES = [
    *((f"{method.decode()} with a body, {how}", method + b" /b HTTP/1.1\r\nHost: h\r\n" + framed, "200")
      for method in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE")
      for how, framed in (("by length", b"Content-Length: 3\r\n\r\nabc"), ("in chunks", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))),
    *((f"more than the length: {more!r}", P + b"Content-Length: 3\r\n\r\nabc" + more, "200 400") for more in (b"d", b"\0", b"\n", b" ", b"0\r\n\r\n")),
    ("a length of 0 and a body", P + b"Content-Length: 0\r\n\r\nabc ", "200 400"),
    ("no length and a body", P + b"\r\nabc ", "200 400"),
    ("more behind the last chunk", TE + b"0\r\n\r\n1\r\na\r\n", "200 400"),
    ("leading zeros beyond 64 bits", _header(b"Content-Length: " + b"0" * 30 + b"3", P) + b"abc", "200"),
    ("a length of 19 digits", _header(b"Content-Length: 1" + b"0" * 18, P), "413"),
    ("a blank behind a length", _header(b"Content-Length: 3 \t", P) + b"abc", "200"),
    *((f"Content-Length: 3 and {coding!r}", _header(b"Content-Length: 3\r\nTransfer-Encoding: " + coding, P) + b"0\r\n\r\n", "400")
      for coding in (b"Chunked", b"gzip", b"", b"x, chunked", b"chunked, chunked")),
    *((f"lengths {a!r} and {b!r}", _header(b"Content-Length: %b\r\nX: y\r\ncontent-length: %b" % (a, b), P) + b"abc", "400")
      for a in (b"3", b"0") for b in (b"3", b"03", b"0", b"", b"x")),
]  # fmt: skip
SIZE_LINES = (
    b"-1", b"+1", b"0x1", b" 1", b"1 ", b"1\t", b"1_1", b"g", b"", b"1;", b"1;;a", b"1;a=", b"1;=b", b"1;a=b=c", b"1;a b", b"1; ", b"1;a= ",
    b'1;a="', b'1;a="\\"', b"1;a=\"\x00\"", b"1,1", b"1.0", b"\xb9", b"0" * 16 + b"1", b"1\0", b"1\x0b", b"1;\x7f",
)  # fmt: skip
MORE_CHUNKS = [
    *((f"chunk size {line!r}, {place}", TE + before + line + b"\r\na\r\n0\r\n\r\n", "400")
      for line in SIZE_LINES for place, before in (("first", b""), ("later", b"1\r\nx\r\n"))),
    *((f"chunk size {line!r}", TE + line + b"\r\na\r\n0\r\n\r\n", "200")
      for line in (b"01", b"1;a", b"1 ; a = b", b'1;a="\\"\\\\"', b"1\t;\ta=\"b;c\" ; d", b'1;a="\xe4 "', b"0" * 14 + b"1")),
    *((f"last chunk {line!r}", TE + line + b"\r\n\r\n", "200") for line in (b"0", b"00", b"0;a", b"000000000000000")),
    *((f"last chunk {line!r}", TE + line, "400") for line in (b"0\n\n", b"0\r\r\n\r\n", b"0 \r\n\r\n", b"-0\r\n\r\n", b"0\r\n\n", b"0\r\n\r\r\n")),
    *((f"trailer {field!r}", TE + b"0\r\n" + field + b"\r\n\r\n", "400")
      for field in (b"X", b": y", b"X : y", b" X: y", b"X\t: y", b"X: y\r\n z", b"X: \0", b"X: a\rb", b"X: \x7f", b"X Y: z", b"\xe4: y")),
    *((f"trailer {field!r}", TE + b"0\r\n" + field + b"\r\n\r\n", "200")
      for field in (b"X:", b"X: y ", b"Host: evil", b"Transfer-Encoding: chunked", b"Connection: close", b"Authorization: x", b"Expect: x",
                    b"A: b\r\nA: c")),
]  # fmt: skip
EXPECTATIONS = [
    *((f"Expect: {value!r}", _header(b"Expect: " + value + b"\r\nContent-Length: 3", P) + b"abc", status)
      for value, status in ((b"100-continue", "200"), (b"100-CONTINUE", "200"), (b"", "417"), (b"100", "417"), (b"200-ok", "417"),
                            (b"100-continue, x", "417"), (b"100-continue;q=1", "417"), (b'"100-continue"', "417"))),
    ("Expect without a body", _header(b"Expect: 100-continue"), "200"),
    ("Expect in HTTP/1.0", b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", "200."),
    ("Expect and chunks", _header(b"Expect: 100-continue\r\nTransfer-Encoding: chunked", P) + b"1\r\na\r\n0\r\n\r\n", "200"),
    ("Expect and a body that is too large", _header(b"Expect: 100-continue\r\nContent-Length: 1001", P), "413"),
]  # fmt: skip
CONNECTIONS = [
    *((f"Connection: {value!r}", _header(b"Connection: " + value), expected)
      for value, expected in (
          (b"close", "200."), (b"CLOSE", "200."), (b"x, Close", "200."), (b"close, keep-alive", "200."), (b"keep-alive, close", "200."),
          (b",close,", "200."), (b"close\t", "200."), (b"keep-alive\r\nConnection: close", "200."), (b"keep-alive", "200"), (b"", "200"),
          (b"closed", "200"), (b'"close"', "200"), (b"host", "200"), (b"upgrade", "200"), (b"TE", "200"), (b"close x", "200"))),
    *((f"HTTP/1.0, Connection: {value!r}", _header(b"Connection: " + value, OLD), expected)
      for value, expected in (
          (b"keep-alive", "200"), (b"Keep-Alive", "200"), (b"x, keep-alive", "200"), (b"close", "200."), (b"keep-alive, close", "200."),
          (b"", "200."), (b"keep", "200."), (b"keep-alive\r\nConnection: close", "200."))),
    ("a named length", _header(b"Connection: content-length\r\nContent-Length: 3", P) + b"abc", "200"),
    ("Proxy-Connection", _header(b"Proxy-Connection: close"), "200"),
    ("Keep-Alive", _header(b"Keep-Alive: timeout=0"), "200"),
    ("TE", _header(b"TE: trailers, gzip;q=0.5\r\nConnection: TE"), "200"),
]  # fmt: skip
GARBAGE = (b"\0", b"\x16\x03\x01\x02", b" " + GET, b"HTTP/1.1 200 OK\r\n\r\n", b"x\r\n\r\n", b"\n" + GET, b"\xff\xff", b"GET /\r\n", b"GET / HTTP/1.1\r\n\r\n")  # fmt: skip
PIPELINES = [
    *((f"{first}, then {garbage!r}", data + garbage, "200 400") for garbage in GARBAGE
      for first, data in (("a request", GET), ("a body", P + b"Content-Length: 1\r\n\r\na"), ("chunks", TE + b"1\r\na\r\n0\r\n\r\n"))),
    ("two requests", GET + GET, "200 200"),
    ("ten requests", GET * 10, " ".join(["200"] * 10)),
    ("empty lines between", GET + b"\r\n\r\n\r\n" + GET, "200 200"),
    ("a body, then a request", P + b"Content-Length: 1\r\n\r\na" + GET, "200 200"),
    ("chunks, then a request", TE + b"1\r\na\r\n0\r\n\r\n" + GET, "200 200"),
    ("the last request, then another", _header(b"Connection: close") + GET, "200."),
    ("HTTP/1.0, then another", OLD + END + GET, "200."),
    ("a refused one, then another", _header(b"X : y") + GET, "400"),
    ("an unknown method, then another", _line(b"BREW / HTTP/1.1") + GET, "501"),
    ("three, of which the second is malformed", GET + b"GET  / HTTP/1.1\r\n\r\n" + GET, "200 400"),
    ("three, of which the second is too long", GET + b"GET /" + b"a" * 600 + b" HTTP/1.1\r\n\r\n" + GET, "200 414"),
    ("a request within a body", P + b"Content-Length: %d\r\n\r\n" % len(GET) + GET, "200"),
    ("a request within a chunk", TE + b"%x\r\n" % len(GET) + GET + b"\r\n0\r\n\r\n", "200"),
    ("a request within an extension", TE + b'0;a="GET / HTTP/1.1"\r\n\r\n', "200"),
    ("a request within a trailer", TE + b"0\r\nX: GET / HTTP/1.1\r\n\r\n", "200"),
]  # fmt: skip
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
PROPOSED = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
UPGRADES = [
    ("WebSocket without a key", _header(PROPOSED + b"Sec-WebSocket-Version: 13"), "200", "400", WHY),
    ("WebSocket with two keys", _header(PROPOSED + b"Sec-WebSocket-Version: 13\r\n" + KEY + END + KEY), "200", "400", WHY),
    ("WebSocket with a short key", _header(PROPOSED + b"Sec-WebSocket-Version: 13\r\n" + KEY.replace(b"dG", b"")), "200", "400", WHY),
    ("WebSocket without a version", _header(PROPOSED + KEY), "200", "426", WHY),
    ("WebSocket of version 8", _header(PROPOSED + KEY + b"\r\nSec-WebSocket-Version: 8"), "200", "426", WHY),
    ("WebSocket by POST", _header(PROPOSED + KEY + b"\r\nSec-WebSocket-Version: 13", P), "200", "400", WHY),
    ("WebSocket with a body", _header(PROPOSED + KEY + b"\r\nSec-WebSocket-Version: 13\r\nContent-Length: 3") + b"abc", "200", "400", WHY),
    ("WebSocket among others", _header(b"Connection: upgrade\r\nUpgrade: h2c, WebSocket"), "200", "426", WHY),
    ("WebSocket in HTTP/1.0", _header(PROPOSED + KEY + b"\r\nSec-WebSocket-Version: 13", OLD + b"Host: h\r\n"), "200."),
    ("WebSocket without the connection option", _header(b"Upgrade: websocket\r\n" + KEY + b"\r\nSec-WebSocket-Version: 13"), "200"),
    ("Upgrade: h2c and a body", _header(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3", P) + b"abc", "200"),
    ("Upgrade: h2c and chunks", _header(b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked", P) + b"1\r\na\r\n0\r\n\r\n", "200"),
    ("Upgrade: TLS/1.0", _header(b"Connection: Upgrade\r\nUpgrade: TLS/1.0"), "200"),
    ("an empty upgrade", _header(b"Connection: Upgrade\r\nUpgrade:"), "200"),
    ("an upgrade, then garbage", _header(b"Connection: Upgrade\r\nUpgrade: h2c") + b"\0", "200 400"),
]  # fmt: skip


def _sized(size, before=b"", behind=b"", field=b"X: "):
    return before + field + b"a" * (size - len(before) - len(field) - len(behind)) + behind


LIMITS = [
    ("a request line at the limit", _sized(512, b"GET ", b" HTTP/1.1\r\n", b"/") + b"Host: h\r\n\r\n", "200"),
    ("a request line above the limit", _sized(513, b"GET ", b" HTTP/1.1\r\n", b"/") + b"Host: h\r\n\r\n", "414"),
    ("a header at the limit", G + _sized(700) + b"\r\n\r\n", "200"),
    ("a header above the limit", G + _sized(701) + b"\r\n\r\n", "431"),
    ("a head at the limit", _sized(1024, G + b"Y: " + b"b" * 400 + b"\r\n", b"\r\n\r\n"), "200"),
    ("a head above the limit", _sized(1025, G + b"Y: " + b"b" * 400 + b"\r\n", b"\r\n\r\n"), "431"),
    ("as many headers as allowed", G + b"A: b\r\n" * 19 + END, "200"),
    ("one header too much", G + b"A: b\r\n" * 20 + END, "431"),
    ("a body at the limit", P + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000, "200"),
    ("chunks at the limit", TE + b"1F4\r\n" + b"x" * 500 + b"\r\n1f4\r\n" + b"y" * 500 + b"\r\n0\r\n\r\n", "200"),
    ("chunks one above the limit", TE + b"1F4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"y" * 501 + b"\r\n0\r\n\r\n", "413"),
    ("a chunk far above the limit", TE + b"FFFFFFFFFFFFFFF\r\n", "413"),
    ("an extension at the limit", TE + b"1;" + b"a" * 254 + b"\r\nx\r\n0\r\n\r\n", "200"),
    ("an extension above the limit", TE + b"1;" + b"a" * 255 + b"\r\nx\r\n0\r\n\r\n", "400"),
    ("as many trailers as allowed", TE + b"0\r\n" + b"A: b\r\n" * 20 + END, "200"),
    ("a trailer above the limit", TE + b"0\r\nX: " + b"a" * 698 + b"\r\n\r\n", "400"),
    ("trailers above the limit", TE + b"0\r\n" + (b"X: " + b"a" * 600 + END) * 2 + END, "431"),
    ("many empty lines before", b"\r\n" * 2000 + GET, "200"),
]  # fmt: skip
KINDS = {
    "request lines": [*REQUEST_LINES, *CONTROLLED_LINES],
    "versions and methods": [*VERSIONS, *METHODS],
    "targets": TARGETS,
    "hosts": [*HOSTS, *MORE_HOSTS],
    "fields": [*FIELDS, *UNDERSCORED],
    "malformed fields": MALFORMED_FIELDS,
    "lengths and codings": [*LENGTHS, *CODINGS, *BODIES],
    "chunks": [*CHUNKS, *MORE_CHUNKS],
    "expectations and connections": [*EXPECTATIONS, *CONNECTIONS],
    "pipelines": PIPELINES,
    "upgrades": UPGRADES,
    "limits": LIMITS,
}
ATTACKS = {kind: [Row(*row) for row in rows] for kind, rows in KINDS.items()}
