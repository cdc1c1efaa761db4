"""The catalog of messages that an administrator looks for: MESSAGE_ID, subject, and explanation.

``journalctl -x`` shows the explanation below a message; ``journalctl MESSAGE_ID=…`` finds all of a kind.
"""

from msgspec import Struct


class Entry(Struct, frozen=True):
    """One kind of message. journald.conf(5), systemd-id128(1)."""

    id: str
    subject: str
    text: str


STARTED = Entry(
    "d9d3a667eb414357a91343634bdd7584",
    "The service is starting; it loads the application",
    "The configuration has been read and is valid. The zygote now loads the application and forks the "
    "workers. The service is ready when the first generation is serving, which is logged as well. Until "
    "then connections wait in the sockets' backlogs.",
)
SERVES = Entry(
    "1d87b7bc30c14d5f9e1c539a2d50ba23",
    "Generation @PREFORKD_GENERATION@ is serving",
    "All workers of this generation accept connections. If there was a generation before, it has been "
    "replaced: its workers finish their requests and exit. preforkctl status shows both.",
)
START_FAILED = Entry(
    "6ae63428612747f9a1f777c3de7b35c2",
    "The service cannot start",
    "The first start has no earlier generation to keep, so the service exits. The message gives the "
    "reason, and the exit status the part that has to be fixed: 78 the configuration, 69 the "
    "application, 71 the system. Run preforkd check --import with the same configuration to reproduce "
    "the failure.",
)
RELOAD_REFUSED = Entry(
    "5ce32c4b55294450907075e9e5f1a747",
    "A reload failed; the current generation keeps serving",
    "The new configuration is not valid, or the application did not load or start. The running workers "
    "were not changed. Fix what the message names (it gives file and line where there is one), then "
    "reload again. preforkd check --import tests a configuration without touching the service.",
)
RELOADED = Entry(
    "5bef441f447b419895e901e37d321a08",
    "Reload completed: generation @PREFORKD_GENERATION@ is serving",
    "The configuration was read again, the application was loaded anew, and all new workers accept "
    "connections. The workers of the previous generation finish their requests and exit.",
)
RELOADED_LIVE = Entry(
    "802fed1e751949e3a79d39feb1455ac9",
    "A reload changed settings without starting new workers",
    "Every setting that had changed can be changed while the workers are serving. To start new workers "
    "anyway, for example after new code was installed, run preforkctl reload --fresh.",
)
WORKER_ENDED = Entry(
    "946b4e4f328349fca92ba94e2e420ceb",
    "Worker @PREFORKD_WORKER@ exited unexpectedly",
    "The master had not ordered it to exit: the application ended the process, or it was killed from "
    "outside. The message gives the exit status or the signal. SIGKILL without a message of preforkd "
    "before it usually comes from the kernel when memory is exhausted: see journalctl -k. The master "
    "starts a replacement at once, or after a delay when starts keep failing.",
)
WORKER_CANNOT_START = Entry(
    "c997dfbd04374aab96e38b57797f96f9",
    "Worker @PREFORKD_WORKER@ cannot start",
    "The application failed while this worker started, for example in the hook worker_started or in its "
    "ASGI lifespan. The start is retried with growing delays; during a reload it makes the reload fail.",
)
WORKER_HUNG = Entry(
    "6085d2044f484dcdb08060f04c7c51aa",
    "Worker @PREFORKD_WORKER@ did not start in time",
    "It was forked and not ready within timeouts.boot, so it is killed. It may be waiting for something "
    "at its start, such as a database, or for a lock that was held while it was forked. Its stacks are "
    "logged. If the start is slow but sound, raise timeouts.boot.",
)
DRAIN_TIMEOUT = Entry(
    "9a650dadfa674863aaacf350087f1a0f",
    "Worker @PREFORKD_WORKER@ did not exit in time",
    "It was ordered to drain and did not exit within timeouts.drain, so it is killed: a request takes "
    "longer than that, or hangs. The client of that request sees its connection close. Its stacks are "
    "logged. If such requests are legitimate, raise timeouts.drain.",
)
OUT_OF_MEMORY = Entry(
    "09b5d2efc8aa46e4864e183930e628ef",
    "Worker @PREFORKD_WORKER@ was killed: out of memory",
    "The kernel killed it because the memory of the service (MemoryMax=) or of the machine was "
    "exhausted. Another worker replaces it. Reduce the number of workers, set memory.limit, or provide "
    "more memory. journalctl -k shows the kernel's report.",
)
WORKER_KILLED = Entry(
    "2e44bb19e2244387b153613bc4891b90",
    "Worker @PREFORKD_WORKER@ is killed",
    "It is no longer needed: its generation was given up, or the service stops quickly. It was not "
    "serving, or the stop does not wait for its requests.",
)
ZYGOTE_LOST = Entry(
    "345c0e79083545c989b100138fe60ecd",
    "The zygote of generation @PREFORKD_GENERATION@ exited unexpectedly",
    "The process from which workers are forked exited without an order of the master. The workers keep "
    "serving; another zygote loads the application now, and no worker can be replaced until it has. If "
    "the kernel killed it because memory was exhausted, journalctl -k shows that.",
)
ZYGOTE_KILLED = Entry(
    "b680c06974ff433b980c8cef1c3ff668",
    "The zygote of generation @PREFORKD_GENERATION@ is killed",
    "The process from which workers are forked did not load the application within timeouts.start, did "
    "not fork a worker within timeouts.boot, was stopped by a signal for more than ten seconds, or is no "
    "longer needed: the message gives the reason. If a timeout expired, its stacks are logged. Running "
    "workers keep serving; if its generation is still needed, another zygote loads the application.",
)
LISTENER_SYSTEMD = Entry(
    "46977754a6134646b2fa9cf86eb641a6",
    "Listening on @PREFORKD_LISTENER@, a socket from systemd",
    "A socket unit passed the socket, under the name given by its FileDescriptorName=. The unit "
    "determines its address; the socket stays open when this service stops.",
)
LISTENER_BOUND = Entry(
    "f4b144b54ac64227a1f7511d88f84e8f",
    "Listening on @PREFORKD_LISTENER@, bound by preforkd",
    "The socket was bound because the setting listen names its address. If FileDescriptorStoreMax= "
    "allows it, systemd keeps a copy, so that the socket stays open while the service restarts.",
)
LISTENER_STORED = Entry(
    "e08e6f71d0584ff699574ec2deda0eec",
    "Listening on @PREFORKD_LISTENER@, kept by systemd",
    "An earlier run of this service bound the socket, and systemd kept it open in the meantime. "
    "Connections that arrived since then have waited in its backlog.",
)
WATCHDOG_WITHHELD = Entry(
    "99c5858564d24b36941d1740b572ac63",
    "The watchdog ping is withheld",
    "No worker is serving, and none has become ready for longer than a start may take. The service "
    "manager restarts the service if WatchdogSec= is set. Earlier messages give the reasons why starts "
    "fail.",
)
MASTER_KILLED = Entry(
    "4bdad37a44b84fc58632d66b03b212e3",
    "The master was killed",
    "It could not log anything itself. SIGKILL comes from an administrator, from systemd when a timeout "
    "has expired, or from the kernel when memory is exhausted: see journalctl -k. Its workers finish "
    "their requests, for at most five seconds where systemd waits for them. Restart= of the unit decides "
    "whether the service starts again; until then connections wait in the sockets that systemd holds.",
)
STOPPING = Entry(
    "4b74d9c40a3747c6b642a61aa3b11ab6",
    "The service is stopping",
    "It accepts no new connections. Running requests may finish within timeouts.drain; then workers are "
    "killed.",
)
IDLE_EXIT = Entry(
    "15f7b384fb73429f911a9937e5092573",
    "The service exits because it is idle",
    "No request was running and no connection was open for the time set by idle_exit. systemd keeps the "
    "sockets open, and the next connection starts the service again.",
)
MEMORY_PRESSURE = Entry(
    "ba2b221db65a4b75ab8ab62c442d361d",
    "Memory is short",
    "The kernel reported that processes of this service are waiting for memory. The master and every "
    "worker have collected garbage and returned free memory, and an elastic pool shrinks to the workers "
    "that are busy. If this happens often, reduce the number of workers or provide more memory.",
)
CRASH_LOOP = Entry(
    "c1fdad31fee7426cb214ae2562a331c4",
    "Starts fail repeatedly; the next one is delayed",
    "Workers exit at their start or soon after it, or the application cannot be loaded again. Each "
    "failure doubles the delay before the next start, up to 30 seconds. Workers that are running keep "
    "serving. Earlier messages give the reason of each failure.",
)
WORKER_SPENT = Entry(
    "a3fd82ca16a142fbaa2f53b713762c9e",
    "Worker @PREFORKD_WORKER@ will be replaced",
    "It has reached one of its limits (limits, memory.limit); the message names which. It keeps serving "
    "until its replacement is ready. If this happens often, the limit is too low, or the application "
    "does not free what it no longer needs.",
)
REQUEST_OVERDUE = Entry(
    "f435c563b35e4da79308a8508648166d",
    "Worker @PREFORKD_WORKER@ was killed: the application took too long",
    "The application worked on one request for longer than timeouts.request, or kept the worker's event "
    "loop from running for timeouts.heartbeat while clients waited. The log has the stacks of all "
    "threads of the worker, which show where it was. Its clients see their connections close. A "
    "replacement is started at once.",
)
REQUEST_SLOW = Entry(
    "104a6c173735416888baf12132e6ae41",
    "A request in worker @PREFORKD_WORKER@ is slow",
    "The application has worked on one request for longer than timeouts.slow. The stacks of all threads "
    "show where it is. Nothing else is done.",
)
WORKER_STOPPED = Entry(
    "b1560697096e496898d018503ca0c5dd",
    "Worker @PREFORKD_WORKER@ was stopped by a signal",
    "It received SIGSTOP, or a debugger holds it. It serves no requests meanwhile. If it stays stopped "
    "for more than ten seconds, it is killed and replaced. kill -CONT lets it continue.",
)
RESIZED = Entry(
    "af2f6ff3c89e4e40a385b13435d28d67",
    "The size of the pool has changed",
    "An elastic pool (workers.min, workers.max) grows when connections wait and no worker is idle, and "
    "shrinks slowly when workers have not been needed for half a minute. preforkctl scale sets the size "
    "by hand.",
)
SATURATED = Entry(
    "82eda3cd5bda4f3ca2a57c24a6e811cb",
    "All workers are busy, and connections are waiting",
    "No worker is idle, connections wait in the kernel's backlog, and the pool does not grow further. If "
    "the workers mostly wait, for a database for example, use more of them (workers.max, workers.count, "
    "workers.threads). If the CPUs are busy, only less work or more CPUs help. timeouts.slow logs which "
    "requests are slow.",
)
REFORK = Entry(
    "0697c3e9c8414d3c81e029fbe3c1adb8",
    "A zygote is forked from a warm worker",
    "New workers share the memory of what the warm worker has loaded since its start. They replace the "
    "others a few at a time; a worker exits only when its replacement is serving.",
)
REFORK_FAILED = Entry(
    "f2578db065e04dfea0ccb1836c5a378f",
    "A zygote could not be forked from a worker",
    "The previous zygote stays in use, and the running workers were not changed. The message gives the "
    "reason. The next attempt is delayed, longer after each failure.",
)
LINES_LOST = Entry(
    "16be9f54f4684cd68a60b0fdabb31d5f",
    "Log lines were lost",
    "More was logged or printed than the journal accepted. Each process waits for the journal for at "
    "most a second and drops lines only after that: systemd-journald was stopped, hung, or had too "
    "little CPU time. Raise its CPUWeight=, or log less.",
)

ENTRIES = (
    STARTED,
    SERVES,
    START_FAILED,
    RELOAD_REFUSED,
    RELOADED,
    RELOADED_LIVE,
    WORKER_ENDED,
    WORKER_CANNOT_START,
    WORKER_HUNG,
    DRAIN_TIMEOUT,
    OUT_OF_MEMORY,
    WORKER_KILLED,
    ZYGOTE_LOST,
    ZYGOTE_KILLED,
    LISTENER_SYSTEMD,
    LISTENER_BOUND,
    LISTENER_STORED,
    WATCHDOG_WITHHELD,
    MASTER_KILLED,
    STOPPING,
    IDLE_EXIT,
    MEMORY_PRESSURE,
    CRASH_LOOP,
    WORKER_SPENT,
    REQUEST_OVERDUE,
    REQUEST_SLOW,
    WORKER_STOPPED,
    RESIZED,
    SATURATED,
    REFORK,
    REFORK_FAILED,
    LINES_LOST,
)
