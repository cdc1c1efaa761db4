"""Logging: records of all processes, captured output, the access log and the catalog of messages.

Theory of operation
-------------------

Every process logs by itself: the master, each zygote and each worker send their records directly to the
journal's socket, one datagram for each entry (`journal`), with fields that identify the process (`context`:
PREFORKD_WORKER, PREFORKD_GENERATION). They do not pass through the master: it would be a bottleneck, the
journal would show the master's pid for all of them, and records would be lost with it.  `logs.configure`
selects the journal if standard error is connected to it ($JOURNAL_STREAM), otherwise lines on standard error
(`handlers`).

A worker's socket must be its own: a zygote's would be shared by all of its workers, and a worker that floods it
would block the others.  `logs.renew_after_fork` opens it, and changes nothing else, since the configuration
lies on shared pages.

preforkd's loggers are independent of those of the application.  They call their handler directly, so that the
application's `dictConfig` cannot silence them; the root logger stays as the interpreter made it, so that the
application may configure it.  Because an application may create loggers below ``preforkd`` (or import modules
that do) while it is loaded, the zygote configures logging before and after.

*Losses.*  A journal that does not read must not stop the service.  The first send that finds the socket's
buffer full waits up to one second; then no send waits until one succeeds.  An entry that is not sent is counted
(`sender`), and the count is reported in an entry of its own (catalog.LINES_LOST) as soon as the journal reads:
with the next record, or by a thread that retries, or when the process exits.  The master writes such records to
standard error instead. The lines of a standard error that is not read are counted likewise.

*Captured output.*  What an application prints goes one of two ways.  Python's `sys.stdout` and `sys.stderr` are
replaced in the zygote (`captured`): each line becomes an entry of the process that printed it.  Everything
else, libraries in C and programs that the application starts, writes to the descriptors 1 and 2, which are
pipes that the master reads (`preforkd.supervisor.child_output`); it sends the lines to the journal with the
fields of the child.

*The access log* (`access_log`) is written by the worker that answered, in batches at the end of a turn of its
loop, to the journal, to a file or to standard error.  It uses the same sender, so that its losses are in the
same count.

*The catalog* (`catalog`) holds the MESSAGE_ID and the explanation of each message that an administrator may
have to act on; the file for journalctl(1) is generated from it.

What is logged about text of others, a request's target or an exception's message, is escaped
(`preforkd.core.text`): no control character reaches a terminal, and no line looks like a record of its own.
Thread safety: handlers hold logging's lock; `JournalSender` may be used by several threads and signal handlers.
"""
