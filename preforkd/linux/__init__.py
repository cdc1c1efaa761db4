"""Thin layers over Linux, CPython and systemd's protocols: one family of calls in each module.

Theory of operation
-------------------

The modules decide nothing: they take numbers and names, call the system, and return what it answers.  Whether a
child is killed, a socket is bound or a status is sent is decided above, in the supervisor, the zygote and the
workers.  A module that keeps state keeps that of one kernel object (a cgroup's counter, the title's memory, a
notify socket).

Errors are of three kinds.  OSError passes through where the caller knows what was tried.
`preforkd.errors.SystemFailure` is raised where an administrator must act and this module knows the hint
(`bind`, `socket_activation`).  Where a missing facility must not stop a service (no /proc, an older kernel, no
right to change a score), the function does nothing or returns None, as its docstring states.

Which process calls what:

- master: `socket_activation`, `bind`, `backlog`, `sd_notify`, `process` (pidfds, reaping), `cgroup`, `cpus`,
  `memory`, `usage`, `rlimits`, `environment`, `title`;
- zygote: `fork`, `atfork`, `exit_handlers`, `unpatched`, `inventory`, `process.ignore_master_signals`, `title`,
  `stacks`;
- worker: `atfork`, `exit_handlers`, `unpatched`, `memory.trim`, `stacks`, `process.exit_process`, `title`.

Rules that hold everywhere in the package:

- Every descriptor is close-on-exec; a program inherits only those that posix_spawn duplicates for it.
- Processes are signalled and reaped by pidfd, never by a pid that may have been reused; a pid is used only for a
  child that is not reaped yet.
- In the zygote and in workers the application may have replaced functions of the standard library.  `unpatched`
  gives preforkd's modules the originals; code that acts on the application's own threads uses
  `sys.modules["threading"]` instead.
- Signal handlers (`stacks`, `process`) run in the main thread, between any two instructions of the application;
  those of `os.register_at_fork` (`atfork`) run in the thread that forks, with all signals blocked.
- Nothing here imports another package of preforkd, except `preforkd.errors`.
"""
