"""The ASGI server: an asyncio shell around the HTTP engine. ASGI 3, HTTP & WebSocket 2.5, Lifespan 2.0.

Theory of operation

Everything runs in one asyncio (or uvloop) event loop in the main thread.  The way of a request: `server` accepts
a connection, in a callback of the loop on the acceptor's epoll, one for each wake-up; `opening` reads a PROXY
header; `transport` receives the bytes; `protocol` gives them to `preforkd.http.engine`, and takes requests from
it; `scope` has made what the application gets of a head; `cycle` is the request: its task calls the application,
which receives the body from `request_body`, and whose answer goes through `preforkd.http.response` and `output`
back to the transport.  `websocket` takes over a connection whose handshake has been checked.

No task, future or timer belongs to a connection; each request has one task.  All timeouts are in `timer`,
which has one timer of the loop; only a client that does not take its answer gets one of its own (`send_timeout`).

Transports.  A plain connection is a `SocketTransport`, which costs half of asyncio's where a client closes after
each request.  TLS is asyncio's, or uvloop's.  Both are used by the interface of `asyncio.Transport`; a
protocol belongs to its transport from ``connection_made`` to ``connection_lost``.

Ownership of an answer.  ``HttpProtocol.cycle`` is the request whose answer is owed; there is at most one, because
the engine returns no further head before.  The cycle gives it up when the answer is complete (`answered`) or cut
off, and the connection takes it away when it sends an answer of its own (`refuse`) or is lost.  The application
may run on; what it sends then raises `ClientDisconnectedError`, an OSError, or RuntimeError.

Flow control.  Above 64 KiB of unread body, or of pipelined requests, the transport is paused, until the
application receives; its time does not count as the client's.  An application that sends faster than its
client reads waits in ``send``.

The end of the input.  A client that shuts down its sending side gets its answer; the application receives
http.disconnect, behind the body.  At the end of the connection after which the client may still send, the
sending side is shut down and input is dropped for two seconds, because a reset would destroy the answer.

Trailers are sent where the body is chunked and the client sent ``TE: trailers`` (RFC 9110, section 6.5.1).  Files
(pathsend) are read in blocks by the loop.

The drain (`drain`) waits for openings, closes idle connections after the linger time, and waits for
requests.  Requests that do not end receive http.disconnect, are cancelled shortly before ``timeouts.drain`` ends,
and are logged, so that the lifespan's shutdown always runs.
"""
