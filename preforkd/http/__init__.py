"""HTTP/1.1 without I/O: bytes to requests, responses to bytes.

Theory of operation

Nothing here touches a socket or reads settings; the only files are those of spooled bodies, the only clock
is that of the Date header.  The callers are the WSGI loop, which feeds `request.RequestReader` and renders by
`response.Response`; the ASGI server, on `engine.HttpEngine` and `response.ResponseWriter`; and the
handshakes, which use `proxy_header.ProxyHeader`.  A reader or a response belongs to one connection, and to the
thread that owns it.  `response.Renderer` and the caches are shared by the threads of a worker and rely on
single operations of a dictionary; `bounds.Budget` has a lock.

Strictness.  A message that a proxy in front could understand differently is refused, never repaired: that
is how requests are smuggled.  Every head is checked twice, by the grammar in `lines` and `head` (RFC 9110,
RFC 9112, no leniency) and by llhttp (httptools), and must pass both.  A refusal is a `RequestError` with the
status to answer; the connection ends after it, because the position of the next request is unknown.  Each
line of a head is checked as it arrives (`lines.refuse_early`), so that the first invalid line is refused at
once; what the lines mean together is checked when the head is complete (`head.HeadParser`).

Framing.  `body.framing` finds the end of a body by Content-Length or by chunks; both at once, a repeated
length and any other transfer coding are refused.  A body stays in memory up to ``http.spool`` and goes to
a temporary file above it; the sums over all requests of a worker are bounded by `bounds.Budget`.  Chunk
extensions and trailers are checked and dropped.  `response` frames the answer by Content-Length where the
length is known, by chunks for HTTP/1.1, else by the end of the connection; an answer that is shorter than
announced ends the connection, so that it never looks complete.

Caches.  Clients repeat themselves, so results are kept for equal bytes: header lines in `lines`, whole heads in
`preforkd.worker.listener_context`, response heads in `response.Renderer`, the
Date header for one second in `caches.Date`.  Every cache is bounded in entries and in the size of one
entry, and keyed by the exact bytes: an entry may be dropped at any time, and never changes a result.

Trust.  Forwarded headers and the PROXY protocol are believed only from ``proxy.trusted`` (`forwarded`,
`proxy_header`); from any other peer the headers are removed before the application sees them.
"""
