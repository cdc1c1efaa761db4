"""Events that an administrator looks for: their MESSAGE_ID, and what the journal's catalog says.

``journalctl -x`` shows the text below a message; ``journalctl MESSAGE_ID=…`` finds all of a kind.
"""

from msgspec import Struct


class Entry(Struct, frozen=True):
    """One kind of message. journald.conf(5), systemd-id128(1)."""

    id: str
    subject: str
    text: str


STARTED = Entry(
    "d9d3a667eb414357a91343634bdd7584",
    "The service has started, and loads the application",
    "The configuration has been read without a fault. The service is ready when the first generation "
    "serves, which is told as well; until then connections wait.",
)
SERVES = Entry(
    "1d87b7bc30c14d5f9e1c539a2d50ba23",
    "Generation @PREFORKD_GENERATION@ serves",
    "A generation of workers has been started, all of them accept connections, and it has "
    "taken over from the one before, if there was one. preforkctl status shows it.",
)
START_FAILED = Entry(
    "6ae63428612747f9a1f777c3de7b35c2",
    "The service cannot start",
    "There is nothing to fall back to at the first start, so the service ends. The message "
    "says why; the exit status says who has to act: 78 the configuration, 69 the "
    "application, 71 the system. Try preforkd check --import with the same configuration.",
)
RELOAD_REFUSED = Entry(
    "5ce32c4b55294450907075e9e5f1a747",
    "A reload was refused; what served serves on",
    "The new configuration or the new application has a fault. Nothing that was serving has "
    "been touched. Mend what the message names, with file and line where there is one, and "
    "reload again. preforkd check --import tries a configuration without touching the "
    "service.",
)
RELOADED = Entry(
    "5bef441f447b419895e901e37d321a08",
    "A reload is done: generation @PREFORKD_GENERATION@ serves",
    "The configuration was read again, the application was loaded anew, and all new workers accept "
    "connections. The workers from before finish their requests and leave.",
)
RELOADED_LIVE = Entry(
    "802fed1e751949e3a79d39feb1455ac9",
    "A reload has changed settings without new workers",
    "Everything that had changed could be changed while the workers serve. preforkctl "
    "reload --fresh starts new workers in any case, for example after new code was "
    "installed.",
)
WORKER_ENDED = Entry(
    "946b4e4f328349fca92ba94e2e420ceb",
    "Worker @PREFORKD_WORKER@ has ended",
    "It had not been told to leave: the application ended it, or somebody killed it. The message says "
    "how. SIGKILL without a message of preforkd's own is mostly the kernel's, for want of memory: see "
    "journalctl -k. Another worker takes the seat at once, or after a delay if starts fail.",
)
WORKER_CANNOT_START = Entry(
    "c997dfbd04374aab96e38b57797f96f9",
    "Worker @PREFORKD_WORKER@ cannot start",
    "The application refuses to serve in this worker, for example in its ASGI lifespan. The "
    "start is tried again with growing delays; during a reload it ends the reload.",
)
WORKER_HUNG = Entry(
    "6085d2044f484dcdb08060f04c7c51aa",
    "Worker @PREFORKD_WORKER@ did not start in time",
    "It was forked and did not say that it can serve within timeouts.boot, so it is killed. It waits for "
    "something at its start, a database for example, or for a lock that was held while it was forked.",
)
DRAIN_TIMEOUT = Entry(
    "9a650dadfa674863aaacf350087f1a0f",
    "Worker @PREFORKD_WORKER@ did not leave in time",
    "It was told to leave and did not within timeouts.drain, so it is killed: it serves a request that takes "
    "longer, or hangs in it. The client of that request sees its connection end.",
)
OUT_OF_MEMORY = Entry(
    "09b5d2efc8aa46e4864e183930e628ef",
    "Worker @PREFORKD_WORKER@ was killed for want of memory",
    "The kernel has killed it because the service's memory was used up (MemoryMax=) or the machine's. "
    "Another worker takes its seat. Fewer workers need less; journalctl -k shows what the kernel saw.",
)
WORKER_KILLED = Entry(
    "2e44bb19e2244387b153613bc4891b90",
    "Worker @PREFORKD_WORKER@ is killed",
    "It is of no use any more: its generation was given up, or the service stops quickly. Nothing that it "
    "could have served is lost.",
)
ZYGOTE_LOST = Entry(
    "345c0e79083545c989b100138fe60ecd",
    "The zygote of generation @PREFORKD_GENERATION@ has ended",
    "The process that workers are forked from has ended unasked. The workers serve on; "
    "another zygote loads the application now. If it was killed for want of memory, "
    "journalctl -k says so.",
)
ZYGOTE_KILLED = Entry(
    "b680c06974ff433b980c8cef1c3ff668",
    "The zygote of generation @PREFORKD_GENERATION@ is killed",
    "The process that workers are forked from did not load the application within timeouts.start, did not "
    "fork a worker within timeouts.boot, was stopped by a signal for more than ten seconds, or is of no "
    "use any more: the message says which. If it was late, its stacks are logged. Workers that serve go "
    "on; where its generation is still wanted, another zygote loads the application.",
)
LISTENER_SYSTEMD = Entry(
    "46977754a6134646b2fa9cf86eb641a6",
    "Listening on @PREFORKD_LISTENER@, a socket from systemd",
    "A socket unit has passed the socket, under the name that its FileDescriptorName= says. Its address is "
    "the unit's; it stays open when this service ends.",
)
LISTENER_BOUND = Entry(
    "f4b144b54ac64227a1f7511d88f84e8f",
    "Listening on @PREFORKD_LISTENER@, bound by preforkd",
    "The setting listen asks for this socket. A copy of it is left with systemd, if "
    "FileDescriptorStoreMax= allows it, so that it stays open while the service restarts.",
)
LISTENER_STORED = Entry(
    "e08e6f71d0584ff699574ec2deda0eec",
    "Listening on @PREFORKD_LISTENER@, kept by systemd",
    "An earlier run of this service has bound the socket, and systemd has kept it open meanwhile. "
    "Connections that came in between have waited in it.",
)
WATCHDOG_WITHHELD = Entry(
    "99c5858564d24b36941d1740b572ac63",
    "The watchdog is not fed",
    "No worker serves, and for longer than a start may take none has become ready. The "
    "service manager will restart the service if WatchdogSec= is set. The messages before "
    "this one say why starts fail.",
)
MASTER_KILLED = Entry(
    "4bdad37a44b84fc58632d66b03b212e3",
    "The master was killed",
    "It had no time to say anything itself. SIGKILL comes from an administrator, from systemd when a "
    "timeout is over, or from the kernel for want of memory: see journalctl -k. Its workers finish their "
    "requests, for at most five seconds where systemd waits for them. Restart= of the unit says whether "
    "the service starts again; meanwhile connections wait in sockets that systemd holds.",
)
STOPPING = Entry(
    "4b74d9c40a3747c6b642a61aa3b11ab6",
    "The service stops",
    "No new connections are accepted. Running requests may finish within timeouts.drain.",
)
IDLE_EXIT = Entry(
    "15f7b384fb73429f911a9937e5092573",
    "The service leaves because nobody uses it",
    "Nothing was asked of it for as long as idle_exit says. The sockets stay open with systemd, and "
    "the next connection starts the service again.",
)
MEMORY_PRESSURE = Entry(
    "ba2b221db65a4b75ab8ab62c442d361d",
    "Memory is short",
    "The kernel told the service that its processes wait for memory. The master and every worker have "
    "collected their garbage and given free memory back, and an elastic pool keeps no more workers than "
    "are busy. If it happens often, fewer workers help, or more memory.",
)
CRASH_LOOP = Entry(
    "c1fdad31fee7426cb214ae2562a331c4",
    "Starts fail again and again",
    "Workers end at their start, or soon after it, so the next start waits, and longer each time: up to "
    "30 seconds. Workers that live serve on. The messages before this one say how the starts failed.",
)
WORKER_SPENT = Entry(
    "a3fd82ca16a142fbaa2f53b713762c9e",
    "Worker @PREFORKD_WORKER@ is to be replaced",
    "It has reached one of its limits (limits, memory.limit): the message says which. It serves on "
    "until another worker takes its place. If it happens often, the limit is low, or the application "
    "keeps what it should give up.",
)
REQUEST_OVERDUE = Entry(
    "f435c563b35e4da79308a8508648166d",
    "Worker @PREFORKD_WORKER@ was killed: the application took too long",
    "The application had a request for longer than timeouts.request, or kept the worker's loop from "
    "turning for timeouts.heartbeat while connections waited. The stacks of all threads of the worker "
    "are in the log: they show where it was. Its clients see their connections end, and another worker "
    "takes the seat at once.",
)
REQUEST_SLOW = Entry(
    "104a6c173735416888baf12132e6ae41",
    "A request in worker @PREFORKD_WORKER@ is slow",
    "The application has had a request for longer than timeouts.slow. The stacks of all threads show "
    "where it is; nothing else happens.",
)
WORKER_STOPPED = Entry(
    "b1560697096e496898d018503ca0c5dd",
    "Worker @PREFORKD_WORKER@ was stopped by a signal",
    "Somebody has sent SIGSTOP, or a debugger holds the process. It serves nobody meanwhile; if it "
    "lasts for more than ten seconds, the worker is killed and another takes its seat. kill -CONT "
    "lets it go on.",
)
RESIZED = Entry(
    "af2f6ff3c89e4e40a385b13435d28d67",
    "The pool has another size",
    "An elastic pool (workers.min, workers.max) grows when connections wait and no worker is idle, "
    "and shrinks slowly when workers have not been needed for half a minute. preforkctl scale gives "
    "it a size by hand.",
)
SATURATED = Entry(
    "82eda3cd5bda4f3ca2a57c24a6e811cb",
    "All workers are busy, and connections wait",
    "No worker is idle and connections wait in the kernel's queue, and the pool does not grow any "
    "more. More workers help if they wait for others most of the time (workers.max, workers.count, "
    "workers.threads); if the CPUs are busy, only less work or more of them does. timeouts.slow shows "
    "what is slow.",
)
REFORK = Entry(
    "0697c3e9c8414d3c81e029fbe3c1adb8",
    "A zygote is forked from a warm worker",
    "What workers have loaded since their start is shared by those that are forked now. They replace "
    "the others a few at a time; a worker leaves only when another serves.",
)
REFORK_FAILED = Entry(
    "f2578db065e04dfea0ccb1836c5a378f",
    "A zygote could not be forked from a worker",
    "The zygote before goes on, and nothing that serves was touched. The message says why; the next "
    "attempt waits, longer after each failure.",
)
LINES_LOST = Entry(
    "16be9f54f4684cd68a60b0fdabb31d5f",
    "Lines of the log were lost",
    "More was logged or printed than the journal took. Each process waits for a journal that is behind, for "
    "a second at the most, and drops lines only then: systemd-journald was stopped, hung, or had no time. "
    "Raise its CPUWeight=, or log less.",
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
