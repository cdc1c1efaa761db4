"""The audit of a soak: each request, each death, each complaint of the log has its explanation."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.soaking.clients import Record
from tests.soaking.faults_of_soak import Death, Faults

NEAR = 1.5
"""Seconds between a worker's end and the moment when its client learns of it."""
_LINE = re.compile(r"preforkd\[\d+\]: (?:(warning|error|critical): )?(.*)")
_PID = re.compile(r"pid (\d+)")


@dataclass
class Verdict:
    """What was found; ``unexplained`` is empty if all is well."""

    outcomes: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)


def audit(records: list[Record], faults: Faults, log: str) -> Verdict:
    """Compare what the clients saw, what was done, what the application wrote, and what the log says."""
    verdict = Verdict()
    site = [line.split() for line in faults.site_log.read_text().splitlines()]
    _judge_requests(verdict, records, faults, site)
    _judge_executions(verdict, records, site)
    _judge_reloads(verdict, faults)
    _judge_reforks(verdict, faults)
    _judge_log(verdict, faults, site, log)
    return verdict


# --- requests --------------------------------------------------------------------------------


def _judge_requests(verdict: Verdict, records: list[Record], faults: Faults, site) -> None:
    deaths = [*faults.deaths, *_own_deaths(site)]
    before: dict[int, list[tuple[int, int]]] = {}
    for words in site:
        if words[:1] == ["BEGUN"]:
            before.setdefault(int(words[3]), []).append((int(words[1]), int(words[2])))
    for record in records:
        verdict.outcomes[f"{record.kind}: {record.outcome}"] += 1
        # Who answered the request before on the same connection still had it, or has given it away.
        earlier = [one for one in before.get(record.port, ()) if one[0] <= record.number]
        why = _explanation(record, deaths, max(earlier)[1] if earlier else 0)
        if why is None:
            verdict.unexplained.append(f"request lost: {record}")
        elif why:
            verdict.explained[why] += 1


def _own_deaths(site) -> list[Death]:
    # Those that the application has brought about.
    return [
        Death(int(words[1]), words[2], float(words[3]), frozenset(map(int, words[4:])), own=True)
        for words in site
        if words[:1] == ["DIES"]
    ]


def _explanation(record: Record, deaths: list[Death], had: int) -> str | None:
    if record.kind == "fault":
        wanted = "answered 500" if record.path == "/raise" else ""
        if record.outcome == wanted or (not wanted and record.outcome not in {"", "ok"}):
            return "the request was itself the fault"
    elif record.outcome == "ok":
        return ""
    if record.outcome == "" or record.outcome.startswith(("answered", "wrong")):
        return None
    for death in deaths:
        if record.port not in death.ports and death.pid != had:
            continue
        # A port is used again by another connection some time.
        if record.sent - NEAR < death.when < record.ended + NEAR:
            return f"its worker died ({death.how})" if death.own else f"its worker was {death.how}"
    return None


def _judge_executions(verdict: Verdict, records: list[Record], site) -> None:
    times = Counter(int(words[1]) for words in site if words[:1] == ["BEGUN"])
    del times[0]  # the rude client's
    for number, count in times.items():
        if count > 1:
            verdict.unexplained.append(f"request {number} was executed {count} times")
    known = {record.number for record in records}
    for number in sorted(times.keys() - known):
        verdict.unexplained.append(f"request {number} was executed, and nobody has sent it")
    for record in records:
        if record.outcome == "ok" and not times[record.number]:
            verdict.unexplained.append(f"answered, and never executed: {record}")


# --- reloads -----------------------------------------------------------------------------------


def _judge_reloads(verdict: Verdict, faults: Faults) -> None:
    wanted = {"whole": {0}, "broken import": {69}, "broken file": {78}}
    killed = {death.pid for death in faults.deaths} | faults.zygotes
    for kind, status, said in faults.reloads:
        if status in wanted[kind]:
            continue
        # The end of a process of the new generation refuses a reload, and rightly so.
        if status == 69 and "killed by SIGKILL" in said and killed:
            verdict.explained["a reload whose process was killed"] += 1
            continue
        verdict.unexplained.append(f"reload ({kind}) ended with {status}: {said}")


def _judge_reforks(verdict: Verdict, faults: Faults) -> None:
    for kind, status, said in faults.reforks:
        if kind == "broken" and status == 69 and _BROKEN.search(said):
            continue
        if kind == "whole" and status == 0:
            continue
        # It shares its way with reloads, kills, and a refork that is on its way already.
        overtaken = status == 71 and any(why in said for why in _NO_REFORK)
        if overtaken or (status == 69 and _KILLED.search(said)):
            verdict.explained["a refork that something else has overtaken"] += 1
        else:
            verdict.unexplained.append(f"refork ({kind}) ended with {status}: {said}")


_BROKEN = re.compile(r"this refork is broken|exited: exit status 7|exited as soon as it was forked")
_NO_REFORK = ("superseded by a reload", "; refork requires a serving service")
_KILLED = re.compile(
    r"has exited|exited while it forked|killed by SIGKILL|cannot send the refork request"
)


# --- the log -----------------------------------------------------------------------------------


def _endings(faults: Faults, site) -> dict[int, set[str]]:
    # In half an hour the kernel gives a pid again: one may have ended in several ways.
    ended: dict[int, set[str]] = defaultdict(set)
    for death in faults.deaths:
        ended[death.pid].add(death.how)
    for words in site:
        if words[:1] == ["DIES"]:
            ended[int(words[1])].add(words[2])
    return ended


def _judge_log(verdict: Verdict, faults: Faults, site, log: str) -> None:
    ended = _endings(faults, site)
    for pid in ended:
        if not re.search(rf"worker \d+ \(pid {pid}, generation \d+\) exited", log):
            verdict.unexplained.append(f"the log does not say that worker {pid} ended")
    for pid in faults.zygotes:
        if not re.search(rf"zygote \(pid {pid}, generation \d+\) exited: killed by SIGKILL", log):
            verdict.unexplained.append(f"the log does not say that zygote {pid} was killed")
    for pid in faults.asked_to_leave:
        if pid > 0 and not re.search(rf"worker \d+ \(pid {pid}, generation \d+\) exited", log):
            verdict.unexplained.append(f"the log does not say that worker {pid} left")
    for number in faults.raised:
        if f"the application failed on GET /raise?id={number}\n" not in log:
            verdict.unexplained.append(f"the log does not tell of request {number}")
    paused = faults.paused | {-pid for pid in faults.asked_to_leave if pid < 0}
    rules = _rules(ended, faults, paused)
    for match in map(_LINE.match, log.splitlines()):
        if match and match[1] and not any(rule(match[2]) for rule in rules):
            verdict.unexplained.append(f"the log complains: {match[0]}")


def _rules(ended: dict[int, set[str]], faults: Faults, paused: set[int]):
    """Return what complaints of the log are expected after what was done."""
    zygotes, reloads = faults.zygotes, [kind for kind, _, _ in faults.reloads]

    def of(pattern: str, pids, hows: set[str] | None = None):
        compiled = re.compile(pattern)

        def holds(text: str) -> bool:
            pid = _PID.search(text)
            return bool(
                compiled.search(text)
                and pid
                and int(pid[1]) in pids
                and (hows is None or hows & ended.get(int(pid[1]), set()))
            )

        return holds

    def says(pattern: str, condition: object = True):
        compiled = re.compile(pattern)
        return lambda text: bool(condition and compiled.search(text))

    return (
        of(r"exited.*: killed by SIGKILL", ended, {"killed", "stopped", "hung"}),
        of(r"exited.*: killed by SIGSEGV", ended, {"crash"}),
        of(r"exited.*: exit status 9", ended, {"exit"}),
        of(r"took longer than .*; stacks:", ended, {"hung", "stopped"}),
        of(r"is killed: .*took longer than", ended, {"hung", "stopped"}),
        of(r"is killed: .*was stopped by a signal", ended, {"stopped"}),
        # It was told to leave before it was stopped, so that its time was over earlier.
        of(r"is killed: .*did not exit within", ended, {"stopped"}),
        of(r"was stopped by a signal", ended.keys() | paused),
        of(r"zygote .* exited: killed by SIGKILL", zygotes),
        of(r"zygote .* is killed", zygotes),
        says(r"is killed: its generation is no longer wanted", reloads),
        says(r"zygote \(pid \d+, generation \d+\) is killed", "broken import" in reloads),
        says(rf"refork of generation \d+ failed; .*({_BROKEN.pattern})", faults.reforks),
        says(r"zygote \(pid \d+, generation \d+\) exited: exit status 7", faults.reforks),
        says(r"\): the hook before_refork failed", faults.reforks),
        says(rf"refork of generation \d+ failed; .*({_KILLED.pattern})", ended or zygotes),
        says(r"is killed: its zygote was given up", faults.reforks),
        says(r"reload failed; generation \d+ keeps serving", reloads),
        says(
            r"exited before it was ready: (it was never forked|cannot send the fork request)",
            zygotes,
        ),
        says(r"\d+ (consecutive )?start failure", zygotes or ended),
        says(r"(worker \d+ \(generation \d+\): )?the application failed on GET /raise\?id="),
        says(r"control socket: \d+ clients are connected; refusing a client"),
        says(
            r"all workers have been busy for .* waiting",
            paused or any("hung" in hows for hows in ended.values()),
        ),
    )


def table(verdict: Verdict, faults: Faults, before: dict[str, int], after: dict[str, int]) -> str:
    """Return the summary."""
    lines = ["requests"]
    lines += [f"  {count:8}  {name}" for name, count in sorted(verdict.outcomes.items())]
    lines += ["lost or refused, and why"]
    lines += [f"  {count:8}  {why}" for why, count in sorted(verdict.explained.items())]
    lines += ["done to the service"]
    lines += [f"  {count:8}  {what}" for what, count in sorted(faults.done.items())]
    lines += ["the master                  before     after"]
    lines += [f"  {name:22} {before[name]:10} {after[name]:9}" for name in before]
    lines += [f"unexplained: {len(verdict.unexplained)}"]
    lines += [f"  {line}" for line in verdict.unexplained[:60]]
    return "\n".join(lines)


def leaks(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return what the master has more of than at the beginning, with the same workers."""
    room = {"memory (KiB)": 6 * 1024}
    return [
        f"the master has leaked {name}: {before[name]} before, {after[name]} after"
        for name in before
        if after[name] > before[name] + room.get(name, 0)
    ]


def read(path: Path) -> str:
    """Return a text; empty when there is none."""
    return path.read_text(errors="replace") if path.exists() else ""
