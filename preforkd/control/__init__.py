"""The control socket: the Varlink interface io.preforkd.Manager, its server and its client.

Theory of operation
===================

`server` accepts clients in the master's loop. From a client's bytes to the master a request passes `dispatch`
(Varlink: JSON with a zero byte behind it, which method, are the parameters valid), `interface` (the methods
of the manager, who may call them) and `Backend`, which is the master. `records` are the plain structs that
come back. `introspection` writes the interface's description from the same structs, and is imported on the
first request for it. `client` is the other end, for preforkctl; `path` is the one rule for both ends where
the socket is.

**One request at a time.** A client is read until a request is complete; then it is not read until the answer
has been sent whole. Requests that a client sends ahead wait in its own socket buffer, so what the master
holds for a client is at most one request, what was read with it, and one answer. A reload, a refork or a
reading of memory is answered later, by a callback; the loop goes on meanwhile, and so do other clients.

**Limits.** At most 64 clients are connected at a time. 16 of these places are reserved for clients that may
command, so that read-only clients cannot lock out an administrator. Read-only clients together are granted
200 requests a second; a connection counts as one, so that reconnecting gains nothing; a client beyond that
waits. A request has at most 64 KiB. One that is larger, or is no Varlink call, closes the connection, with a
warning in the log.

**Who may command.** The kernel names the peer at connect(2): pid, user, groups (`permissions`). Every client
that can connect may read; root, the user that preforkd runs as and members of ``control.group`` may also
command. Read-only clients do not see the query of the requests that workers are busy with. Each command is
logged, the refused ones too.

**A slow client** costs nothing but its place. If it sends no request, or does not read its answer, for a
minute, it is disconnected; a request in progress does not count. When the service stops, answers that are on
their way have two seconds to go out.

**Foreign descriptors.** A client may send file descriptors, and the last close(2) of some blocks. Since Linux
6.16 the socket refuses them. Before that, data is peeked at first, a client that sends descriptors is
disconnected, and its socket is closed in a thread (`preforkd.ipc.scm_rights`); until that is done it holds
its place.
"""
