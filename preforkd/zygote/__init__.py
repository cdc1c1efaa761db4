"""The zygote: the process that loads the application once and forks the workers.

Theory of operation
-------------------

The master executes a zygote (`preforkd.cli.zygote`) for each generation, with app.python if that is set, and
sends `Load` over its channel.  The zygote has one thread of its own and no event loop: it blocks on the
channel, and every message is handled to its end.  Signals that the master acts on are ignored.  A child that
the application forks while it is loaded loses the zygote's descriptors (`preforkd.linux.atfork`) and is ended
if it returns.

*Before the first fork* everything that workers can share is made once, in this order (`zygote._load`):

1. the standard library's modules are recorded (`preforkd.linux.unpatched`), since the application may
   monkey-patch them, and logging and the capture of output are configured, since it may log while it is imported;
2. `heap.can_be_immortal`: a heap that must be immortal and cannot is refused before the application is imported
   in vain; with memory.immortal: auto it is only frozen;
3. the application and its hooks are imported, the warm-up runs, lazy imports are resolved (`lazy_imports`), then
   the hook ``zygote_loaded`` is called;
4. preforkd's own modules for this kind of application are imported (``preload``), after the application, which
   may replace modules that they import; then they get the unpatched modules back;
5. if the heap is to be immortal the warm-up runs a second time, and the code that it executes is copied to
   adjacent memory (`code_layout`): what runs for the first time writes more than what runs again;
6. the application must not have closed the zygote's descriptors; logging is configured again, since the
   application may have changed it, and its handlers are flushed: each fork would write their buffers again;
7. threads, connections and other objects that do not survive a fork are logged (`preforkd.linux.inventory`,
   `fork_hazards`);
8. `heap.prepare`: garbage is collected, free blocks between live objects are filled (`padding`), `gc.freeze`
   moves all objects out of the collector's reach, and if it is to be immortal their reference counts are fixed
   (`immortal`).  In this order: what is freed after the filling would leave new gaps, and what is allocated after
   the freeze is neither frozen nor immortal;
9. the trial request (`app_check`) is answered by a worker that is forked for it only;
10. `Loaded` is sent.

With ``app.preload: false`` the application is not loaded here: step 3 enters its directory only, and each worker
loads it (`preforkd.worker.loading`).  ``preforkd check --import`` then has a trial worker load it (step 9).

Steps 3 to 7 write to many pages of the heap: after the fork each worker would copy these pages.

*The fork* is a double fork (`preforkd.linux.fork`): the intermediate process exits, so that the kernel makes
the worker a child of the nearest subreaper, the master, which alone waits for it.  The zygote sends `Forked`
with the pid; the worker starts only after that.  The exit handlers that must run once, multiprocessing's
children and `weakref.finalize`, are taken out of the zygote before the fork and put back when it exits
(`preforkd.linux.exit_handlers`).

*In the child*: one thread, the one that called fork(2); locks that other threads held stay locked.  The
zygote's channel is closed; the worker's channel, slot memory and output pipes are those of `Fork`.
multiprocessing and the hubs of gevent and eventlet are reset (`_reset_after_fork`).  `serve` returns a
`WorkerStart` down to `preforkd.cli.zygote`, which calls the worker: no frame of the zygote remains on the
stack.  The child must not undo the preparation of the heap: it never calls `gc.unfreeze`, and does not
configure logging again, which would write to about a hundred pages (`logs.renew_after_fork` does what is
needed).

*Refork*: a worker that has answered requests has a warmer heap than the zygote.  On `ReforkRequest` it forks
itself, and the child becomes the next zygote of the generation (`from_worker`): it prepares the heap again
(step 8) and serves `Fork` messages.  The former zygote is dismissed with ``followed``: it exits without exit
handlers, because its successor still uses what they would remove.

When the channel ends, the zygote restores the exit handlers, closes its sockets and exits; workers continue
until the master retires them.
"""
