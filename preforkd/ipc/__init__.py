"""How the master, the zygotes and the workers communicate.

Theory of operation
-------------------

There are four mechanisms, each for one need; no other state is shared between the processes.

*Channels* (`channel`, `messages`) carry what must arrive in order and wake the receiver.  For every child the
master creates a SOCK_SEQPACKET socketpair.  It keeps one end, non-blocking, in its loop; the other is passed
on: to a zygote as descriptor CHANNEL_DESCRIPTOR when it is executed, to a worker through its zygote with the
message `Fork`, to a reforked zygote through a worker with `ReforkRequest`.  Each process closes the copies of
the ends that are not its own; the master does so right after it has sent them.  So exactly one process holds
each end, and end-of-file means that it is gone: a child then exits; the master waits for the pidfd, which has
the exit status.  A message is one datagram: it arrives whole or not at all.

The application runs in the zygote and in workers and can write to their channels.  The master therefore trusts
nothing it reads: it decodes strictly by the union of the direction, drops what does not decode and goes on,
takes the sender's pid from the kernel (SCM_CREDENTIALS), refuses descriptors (`scm_rights`), limits the
messages that it reads in a second (`ratelimit`), and never blocks in a send.  A worker trusts its master.

*Slots* (`slots`) carry what changes with each request.  The worker stores numbers in shared memory; the master
reads them when it samples the pool, without a message or a system call.  The worker writes all fields; the
master sets only the request for a wake-up, which the worker clears when it sends `ActivityResumed`.  While the
pool is idle, the master reads nothing.  No lock is needed: each field is an aligned 64-bit integer with one
writer, and no decision depends on two fields that belong together.

*The handoff queue* (`handoff`) carries connections between the workers of one generation: a socketpair that the
master creates for each generation and all its workers inherit through the zygote.  A worker whose thread is in
the application puts connections with a complete request into it; an idle worker gets them.  The master holds
both ends, too: it counts what waits, and when a generation has no workers left it moves its connections to the
next generation.  Messages are decoded strictly here as well: another worker of the same application wrote them.

*Listeners* are sockets that all workers inherit; the kernel distributes connections.  They are not part of this
package.

The package knows neither settings nor policy, and starts no process.  All descriptors that it creates are
close-on-exec.
"""
