"""The worker process: it accepts connections on the shared listeners and calls the application.

Theory of operation

Life.  The zygote forks a worker; `preforkd.cli.zygote` then calls `main.run`, in which the process ends (it
returns only in a zygote that was forked from the worker, see Refork).  The order is: log context, standard
streams, random state and the hook ``after_fork``; the channel to the master, the slot and the acceptor; the
application, if the zygote has not loaded it (``app.preload: false``, `loading`: before the signal handlers,
so that the application cannot replace them); the server of the application's kind, whose ``prepare`` may fail
(`messages.Failed`, exit status 1); the hook ``worker_started``; `messages.Ready`.  The worker then waits for
`messages.Serve` without accepting, serves until it has to retire, drains, calls the hook ``worker_leaving``
and exits.  End-of-file on the channel means that the master has gone: the worker retires as if it had been
ordered to, without lingering.

Modules.  `acceptor` owns the epoll with the listeners, the channel and the signal wake-up; every server
polls through it.  `stream`, `wsgi` and `asgi` are the servers, one for each kind.  `openings` and `tls`
run what precedes the application's bytes (PROXY protocol header, TLS handshake), `handshakes` those of
streams.  `interruption` decides what happens to an exception that a signal handler of the application
raises outside a request.  `preflight` runs in the zygote, before the first fork.

Accepting.  Each listener is registered with EPOLLEXCLUSIVE, so that the kernel wakes one waiting worker
for a connection (epoll_ctl(2)).  After each accept4(2) the listener is removed from the epoll and added
again: that moves the worker to the end of the kernel's wait queue; without it the worker that waited last
is woken first, and a few workers get all connections.  A worker that runs the application does not wait in
epoll and is not chosen.  A listener is disabled, not closed, while the worker has no room.  The kernel
wakes no second worker for the same connection: a wake-up that was received must be followed by an accept,
also when the worker has just begun to retire (`Acceptor.poll` returns the events once more), and also when
the application blocks the worker in between (`WsgiLoop._forward_wakeups`).  accept4(2) never blocks, and
no signal handler raises: a connection cannot be lost between the backlog and its `Connection`.  Where HTTP is
spoken, the kernel keeps a TCP connection until its client has sent something, for a second at most
(`preforkd.linux.defer_accept`): most requests are read in the turn that accepts them.

Threads.  The main thread runs the loop and, unless ``workers.threads`` is above 1, the application.  The
others exist only where they are needed: the takeover thread (kind wsgi), which runs the loop while the
application blocks the main thread; the pool's threads (kind wsgi with ``workers.threads``), each with one
request; the handshake thread (kind stream), while a handler runs.  All are ended before a zygote is forked
from the worker, because only the forking thread exists in the child.

Ownership.  A connection belongs to exactly one thread at a time.  Kind wsgi: to the thread that holds
``Takeover.loop_lock``, except for the connection whose request is being answered; that one belongs to the
thread that called the application, and the takeover thread unregisters it, and removes its deadline, before
it runs the loop.  Kind asgi: to the event loop.  Kind stream: to the handshake, and then to the handler.

While the application runs, code of the worker may not touch the running request's connection, the
`Response` that it writes to, or anything else without holding ``loop_lock``; the SIGTERM handler only sets
``retiring``, and the wake-up descriptor ends the poll.  The slot has one writer at a time; the master reads
its words without a lock.  The application may fork: `preforkd.linux.atfork.ApplicationChildren` replaces the
worker's descriptors in such a child, and a child that returns from its call is ended.

Draining.  `messages.Retire`, SIGTERM sent to the worker itself, a `SystemExit` of the application, and the
end of the master set ``Acceptor.retiring``.  The listeners are disabled, so that other workers get what
is in the backlog.  Requests that have begun are answered with ``Connection: close``; idle connections stay
open for ``linger`` seconds, then they are closed.  Requests are neither refused nor cut off by the worker;
what exceeds ``timeouts.drain`` is ended by the master, or, kind asgi, cancelled shortly before.

Refork.  For `messages.ReforkRequest` the worker forks the next zygote between two requests.  The child
raises `BecomeZygote` through the server's loop up to `main.run`, closing its copies of the connections
without a byte to the clients; it unregisters nothing, because both processes share one epoll.
"""
