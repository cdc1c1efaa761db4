"""Requests that a server must refuse, and some that look alike and must be answered.

Written from RFC 9110 and RFC 9112 and from the published weaknesses of other servers: each is one
request as a client would send it, and the status with which it is refused (200: it is answered).
"""

G = b"GET / HTTP/1.1\r\nHost: h\r\n"
P = b"POST / HTTP/1.1\r\nHost: h\r\n"
TE = P + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n"


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
    ("an upgrade", _header(b"Connection: Upgrade\r\nUpgrade: websocket"), "200"),
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
ATTACKS = [*REQUEST_LINES, *HOSTS, *FIELDS, *LENGTHS, *CODINGS, *CHUNKS]
