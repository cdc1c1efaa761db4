"""The programs: preforkd, preforkctl, and the entry of a zygote.

Theory of operation
===================

This package is above all others: it is the only one that imports the master, the zygote and the worker, which
do not import each other.

**preforkd run** becomes the master. `preforkd.main` parses the command line and calls `supervisor.main.run`
with a function that reads the configuration, in a child process, as often as it is called. The order of its
first steps matters: `lean` is imported before anything imports msgspec, so that this does not load
typing_extensions; signals that request a reload or the status are ignored until the master handles them,
because their default would end it; closed standard descriptors are opened before the first file could take
their numbers. argparse and its relatives are removed from sys.modules after parsing: the master lives as long
as the service, and half a MB of it would be the parser. For the same reason every module that only one command
needs is imported in that command.

**Errors.** A PreforkdError ends a command with one report on standard error and the exit status of its blame
(`preforkd.errors`). If systemd has started ``run``, the report goes to the journal with the MESSAGE_ID of a
failed start, and to STATUS. A socket-activated service whose start fails lives for at least 2 s: the connection
still waits, so systemd would start it again without a pause.

**preforkd check** and **config** read the configuration in their own process, as the service would; credentials
that only the service has are not reported as missing. **wait-workers** is for ExecStop= and ExecStopPost= of
the units: after the master was killed, it logs by which signal, from the environment that systemd sets, and
returns when the workers have finished their requests, after 5 s at most. systemd then kills what is left.

**preforkd convert** translates the configuration of another server: `preforkd.cli.convert`.

**preforkctl** is a client of the control socket: one connection, one call, one answer (`preforkd.control`). It
finds the socket by an option, by $RUNTIME_DIRECTORY, or as the only running service; it never chooses among
several. Texts of clients and applications are escaped before they reach the terminal.

**The zygote's entry** (`zygote`) is what the master executes, with the interpreter of the application.
Descriptor 3 is its channel, 4 the memory for its stacks. From here a process changes its role:
`zygote.from_scratch` loads the application and serves as a zygote, and returns in each worker that it forks;
`worker.main.run` is a worker's life, and returns only in a process that a worker has forked to be the next
zygote, which `zygote.from_worker` serves as; and so on in a loop. The application's interpreter need not have
preforkd's libraries; `import_fallback` finds them, and nothing else of preforkd's installation.

`generate` writes the files that derive from declarations; it runs in a checkout, never in a service.
"""
