"""The master: owns the sockets and the processes and never loads application code.

Theory of operation
===================

`main` builds a `loop.Loop`, the `master.Master` and the control server, and runs the loop in the main thread
until the service has ended. Everything below happens in that loop, one callback after another, unless stated
otherwise.

**A turn** (`Master._turn`). Whatever happens (a message of a child, an end of a process, a timer, a command)
becomes a fact, which `Master.feed` queues; it is never handled where it arises. The next turn then does, in
this order:

1. *Facts.* Each one is logged (`eventlog`, which sees the scoreboard from before) and applied to the
   scoreboard. All of them come before the policy, so that it decides on everything that is known.
2. *Policy.* `core.policy.decide` returns actions and the time at which to ask again. It is pure: no clock, no
   system call. Each action is logged and applied to the scoreboard first, then `Pool.perform` carries it out.
   In that order, since a fact that the action causes must find its row; such a fact (a fork that fails at
   once) waits for the next turn, so nothing re-enters the policy. `perform` does not raise: an action that
   fails is reported as a fact.
3. *Announcements.* What the actions mean for the service as a whole goes through the table
   `core.lifecycle.TABLE`, whose effects are methods of the master: READY=1 to systemd, the answer to a
   client, STATUS, the process title. They come last, because they must be true: READY=1 is sent after the
   workers were ordered to serve.

**A reload.** (1) SIGHUP, the control socket or, with ``app.watch``, `file_watch` calls `Reloads.request`;
requests that arrive while one runs are merged into one that follows. (2) The configuration is read and
checked by another process, awaited in a thread. (3) If only live settings changed, they are adopted, and that
is all. (4) Otherwise `Listeners.propose` binds what is new and keeps what is open, and a candidate generation
is started: its zygote is executed, loads the application, answers the trial request, and forks workers. (5)
When enough of them are ready, the policy promotes the candidate: its workers are ordered to serve, those of
the old generation to drain. (6) `Listeners.commit` closes what is no longer wanted, the settings are adopted,
clients are answered. A failure in steps 2 to 5 ends in `_roll_back`: the candidate's processes are killed,
its new sockets closed, and nothing that was serving has been touched.

**Children.** `pool` holds a handle for each. Zygotes are executed by the master; workers are forked by a
zygote through an intermediate process that exits, and become children of the master because it is their
subreaper. Each child is reaped through its pidfd, by nothing else. SIGCHLD only makes the master look for
children that were stopped, and reap orphans, which the application left behind; orphans are reaped only while
no fork is pending, because a worker may exit before the message with its pid is read. `monitor` samples the
slots, only while something happens (`sampler`), and feeds what it derives as facts: overdue requests, limits
that were reached, demand.

**Threads.** There are four kinds, all daemon threads: ``reader`` awaits the process that reads the
configuration, ``memory`` reads /proc/PID/smaps_rollup, ``handoff`` moves connections between generations,
``close`` closes sockets that may hold foreign descriptors. They touch no state of the master, and pass their
result to the loop.

**What may not block.** The loop is what the watchdog vouches for, so nothing in it waits for a child, a
client, a file system that may hang, or a name server. Channels, pipes and clients are non-blocking; what is
read from one child or client is limited per turn and per second. The exceptions are limited: a journal or a
service manager that does not read is given a second, executing a zygote lasts until execve(2).

**What the master must not import**: application code; asyncio, OpenSSL, YAML (each is a large part of the
memory of a process that lives as long as the service). **What it must not believe**: a pid that a child
sends, unless the kernel confirms that it is a child and no known one; a message, unless the kernel's
credentials show that it is from the process that owns the channel, and then only about that process or, from
a zygote, the workers it was ordered to fork; a slot, beyond what harms only its worker. Descriptors that a
child sends are never accepted.
"""
