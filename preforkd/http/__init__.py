"""HTTP/1.1 without I/O: bytes to requests, responses to bytes.  One engine, used by both HTTP servers.

Theory of operation

Nothing here touches a socket or reads settings; the only files are those of spooled bodies, the only clock
is that of the Date header.  An engine, a sink or a writer belongs to one connection, and to the thread that
owns it.  `response.Renderer` and the caches are shared by the threads of a worker and rely on single operations
of a dictionary; `bounds.Budget` has a lock.

The engine.  `engine.HttpEngine` holds what a connection has sent and received as two states (`states`): the
client's side and the server's side, each IDLE, HEAD, BODY, DONE and so on.  Bytes go in, events come out: a
head, the end of a request with its trailers, or nothing.  The body goes to a sink of the caller: the WSGI
server keeps it whole (`body.BodyStore`), the ASGI server passes it on.  `response.ResponseWriter` makes the
answer and reports its beginning and end to the engine.  When both sides are DONE the next cycle begins.  A
request behind one that is being answered is not evaluated, so that an error answer never gets into another
answer, and a valid request before garbage is answered.  A step that is not in the tables is a defect of the
caller and raises AssertionError; a client causes `bounds.RequestError` only.

Strictness.  A message that a proxy in front could understand differently is refused, never repaired: that is
how requests are smuggled. Every head must match the grammar in `lines` and `head` (RFC 9110, RFC 9112),
whatever server it is for; llhttp, the parser of Node.js, is the oracle of the tests. A refusal names the
status to answer; the connection ends after it, because the position of the next request is unknown. Heads are
checked line by line as they arrive, so that one which cannot become valid is refused at once, with the same
answer as if it had arrived whole.

Framing.  `framing` finds the end of a body by Content-Length or by chunks; both at once and a repeated length
are refused.  Chunk extensions are checked and dropped; trailers are checked and kept apart from the headers.
`response` frames the answer by Content-Length where the length is known, by chunks for HTTP/1.1, else by
the end of the connection; an answer that is shorter than announced ends the connection, so that it never
looks complete.

Caches.  Clients repeat themselves, so results are kept for equal bytes: header lines and Host values in
`lines`, whole heads in `preforkd.worker.listener_context`, response heads in `response.Renderer`, the
Date header for one second in `caches.Date`.  Every cache is bounded in entries and in the size of one
entry, and keyed by the exact bytes: an entry may be dropped at any time, and never changes a result.

Trust.  Forwarded headers (`forwarded`) and the PROXY protocol (`proxy_header`) are believed only from
``proxy.trusted``; from any other peer the headers are removed before the application sees them.

Another protocol.  `upgrade` checks the opening handshake of a WebSocket; `HttpEngine.upgrade` then gives the
connection and the bytes behind the head away.
"""
