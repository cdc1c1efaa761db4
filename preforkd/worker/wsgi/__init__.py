"""The WSGI server: an epoll loop that calls the application for one complete request at a time.

Theory of operation

A request reaches the application when head and body are complete, and what a client does not take of the
answer is kept and sent in the background.  Slow clients and idle connections therefore occupy no worker.

The walk of a request: `loop` polls; `accepting` accepts the connection and advances what precedes HTTP; `serving`
reads and follows each event; `reading` takes requests from the engine (`preforkd.http.engine`) or refuses them;
`answering` calls the application, whose `response` goes to the connection's `outbox`; `records` logs what was
sent.  `connections` alone registers in the epoll, sets deadlines and closes.  Calls go in this direction only.
`connection` holds the engine, the outbox and the request in hand; it decides nothing.

One turn of the loop handles the connections that the worker holds first, then the handoff queue, then one
accept of each listener that woke it. Whole answers to several kept connections are held back and sent
together behind the requests of the turn, for at most a millisecond while the application returns: a process
that is killed in between takes them with it, like the request in hand. The takeover thread sends them if a
request runs for long, and without it none is held. A connection waits for one thing of `connection.Waiting`,
which decides its deadline (`preforkd.worker.deadlines`), or for nothing while its request is with the
application or will be next. Whether another request may follow, and whether input may be left unread, are
states of the engine.

Who owns a connection when::

                                 request complete
    backlog --- accept ---> loop ----------------> application      the main thread, one request at a time
                             |   <----------------                  (or a thread of the pool)
                             |    answered, or the rest of the answer is kept in the outbox
                             |
                             |  request complete, but the application runs
                             +-------------------> handoff queue --> loop of another worker
                             |  the same, but it has to stay: TLS, the queue is full
                             +-------------------> ready ---------> application, when it is free

    loop: the thread that holds ``Takeover.loop_lock``, which is the main thread, or the takeover thread
          while the application runs for long
    application, pool, ready, handoff queue: the connection is not registered and has no deadline
    closed: `Connections.close`, by the loop only; the application closes its answer afterwards, if it has to

`takeover` is a thread that runs this loop while the application blocks the main thread for more than a few
milliseconds.  The holder of ``Takeover.loop_lock`` may run the loop.  The main thread releases the lock
around each call of the application and takes it back afterwards (two uncontended operations, no system
call).  A timer wakes the takeover thread only when the loop has not turned for 5 to 10 ms; it disables the
listeners, reads, sends and expires, and hands complete requests to idle workers (`handoff`,
`preforkd.ipc.handoff`), until the main thread sets ``return_requested`` and wakes the poll.  It never calls the
application, never touches the running request's connection, and never accepts, with one exception:
connections for which the kernel woke this worker before it blocked, as no other worker was woken for them.

`threads` replaces the single call by a pool when ``workers.threads`` is above 1.  The loop then goes on in
the main thread; a connection belongs to the pool between ``submit`` and ``take_answered``.
"""
