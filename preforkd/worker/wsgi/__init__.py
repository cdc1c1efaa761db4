"""The WSGI server: an epoll loop that calls the application for one complete request at a time.

Theory of operation

A request reaches the application when head and body are complete, and what a client does not take of the
answer is kept and sent in the background.  Slow clients and idle connections therefore occupy no worker.

`loop` decides what happens when: it polls, reads, calls, and expires.  `connection` holds one connection's
buffers and does the system calls; it decides nothing.  `preforkd.worker.listener_context` holds what the
connections of a listener share, with the heads that were parsed before.  One turn of the loop handles the
connections that the worker holds first, then the handoff queue, then one accept of each listener that woke
it.

A connection waits for one thing of `connection.Waiting`, which decides its deadline
(`preforkd.worker.deadlines`), or for nothing while its request is with the application.

`takeover` is a thread that runs this loop while the application blocks the main thread for more than a few
milliseconds.  The holder of ``Takeover.loop_lock`` may run the loop.  The main thread releases the lock
around each call of the application and takes it back afterwards (two uncontended operations, no system
call).  The takeover thread takes it only when the loop has not turned since its last look; it disables the
listeners, reads, sends and expires, and hands complete requests to idle workers (`preforkd.ipc.handoff`),
until the main thread sets ``return_requested`` and wakes the poll.  It never calls the application, never
touches the running request's connection, and never accepts, with one exception: connections for which the
kernel woke this worker before it blocked, as no other worker was woken for them.

`threads` replaces the single call by a pool when ``workers.threads`` is above 1.  The loop then goes on in
the main thread; a connection belongs to the pool between ``submit`` and ``take_answered``.
"""
