"""Whether the immortal heap is safe, how long it takes, and whether it stays what it is.

    python tests/bench/immortal.py traversal [--objects 1000000 5000000]
    python tests/bench/immortal.py suite [MODULE ...]
    python tests/bench/immortal.py requests [--requests 100000]

with CPython 3.12 or 3.13. ``suite`` runs parts of CPython's own tests (Debian: libpython3.13-testsuite) in
processes that are forked from a zygote whose heap is immortal, and in ones that are not: what fails only in the
first is shown. ``requests`` needs Django and preforkd's libraries.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import io
import itertools
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import unittest
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE / "tests/process"))
sys.path.insert(0, str(TREE))

from preforkd.linux import memory  # noqa: E402
from preforkd.zygote import code_layout, heap, immortal  # noqa: E402

MIB = 1 << 20


def in_a_child(function, patience: float):
    """Return what this function returns in a forked child, as JSON; None if the child ends otherwise."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.alarm(round(patience))
        with open(write, "w", encoding="utf-8") as answers:
            json.dump(function(), answers)
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as answers:
        text = answers.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return (json.loads(text), 0) if code == 0 else (None, code)


# --- traversal -----------------------------------------------------------------------------------


class Row:
    """A record as applications have them: two attributes that are its own."""

    def __init__(self, number: int) -> None:
        self.number = number + 1000
        self.text = str(number)


class Slotted:
    """Every object here is known to the collector."""

    __slots__ = ("inner", "nothing", "shared")

    def __init__(self) -> None:
        self.inner, self.nothing, self.shared = [], None, ()


SHAPES = {
    "instances": lambda count: [Row(number) for number in range(count // 3)],
    "dictionaries": lambda count: [
        {"id": n + 1000, "name": f"name {n}", "price": n * 1.5, "tags": (str(n), n % 7)}
        for n in range(count // 6)
    ],
    "lists": lambda count: [[number] for number in range(count // 2)],
    "slots": lambda count: [Slotted() for _ in range(count // 2)],
    "texts": lambda count: [str(number) for number in range(count)],
}


def traverse(shape: str, count: int) -> dict[str, float]:
    """Make that many objects, and them immortal; return seconds and the memory that it took."""
    kept = SHAPES[shape](count)
    gc.collect()
    gc.freeze()
    gc.disable()
    before = memory.usage().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    wall, cpu = time.monotonic(), time.process_time()
    objects = immortal.immortalise()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    assert sys.getrefcount(kept[7]) == immortal.COUNT
    memory.release_free()
    after = memory.usage().rss
    return {
        "objects": objects,
        "wall": wall,
        "cpu": cpu,
        "heap": before / MIB,
        "peak": (peak - before) / MIB,
        "stays": (after - before) / MIB,
    }


def traversal(options: argparse.Namespace) -> None:
    """Print a table of times and memory."""
    print("| Objects | Shape | Seconds | CPU seconds | Heap MB | Peak beyond it MB | Stays MB |")
    print("|---|---|---|---|---|---|---|")
    for count in options.objects:
        for shape in SHAPES:
            row, code = in_a_child(lambda shape=shape, count=count: traverse(shape, count), 300)
            assert row is not None, code
            print(
                f"| {row['objects']:,.0f} | {shape} | {row['wall']:.2f} | {row['cpu']:.2f} "
                f"| {row['heap']:.0f} | {row['peak']:.1f} | {row['stays']:.1f} |",
                flush=True,
            )


# --- CPython's own tests -------------------------------------------------------------------------

NAMES = """
abc array ast asyncgen baseexception binop bisect bool buffer builtin bytes call class code codecs
collections complex context contextlib copy copyreg coroutines csv dataclasses datetime decimal
decorators defaultdict deque descr descrtut dict dictviews dynamicclassattribute enum enumerate
exception_group exceptions extcall finalization float fnmatch fractions frame frozen fstring funcattrs
functools gc generators genericalias generator_stop genexps getattr global hash heapq heapq index int
inspect isinstance iter itertools json keywordonlyarg list listcomps long math memoryio memoryview
metaclass module monitoring opcache operator ordered_dict patma peepholer pickle pkgutil positional_only_arg
pprint property queue raise random range re reprlib richcmp scope set setcomps slice sort statistics str
string struct structseq subclassinit super sys sys_settrace textwrap threading_local traceback tuple
type_aliases type_annotations type_cache type_comments type_params types typing unicode_identifiers
unpack unpack_ex userdict userlist userstring uuid weakref weakset with yield_from zlib
"""
"""Modules of CPython's tests, without test_; those that are not in this version are left out."""
LIBRARIES = "asyncio concurrent.futures decimal email http.client json logging sqlite3 typing"


class Names(unittest.TestResult):
    """Keeps the names of what did not pass."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []

    def addFailure(self, test, err) -> None:
        super().addFailure(test, err)
        self.bad.append(f"{test.id()}: {err[1]!r}"[:300])

    def addError(self, test, err) -> None:
        super().addError(test, err)
        self.bad.append(f"{test.id()}: {err[1]!r}"[:300])

    def addSubTest(self, test, subtest, err) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.bad.append(f"{subtest.id()}: {err[1]!r}"[:300])


def run_tests(name: str) -> dict[str, object]:
    """Run one module of CPython's tests here, silently."""
    gc.enable()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with open("output", "w") as output:
            for number in (1, 2):
                os.dup2(output.fileno(), number)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            module = importlib.import_module(f"test.test_{name}")
            result = Names()
            unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
            os.chdir("/")
    return {"ran": result.testsRun, "bad": result.bad}


def preload(names: list[str]) -> None:
    """Import what the tests import, and the tests themselves when they are to be immortal, too."""
    import test.support
    import test.support.import_helper
    import test.support.os_helper
    import test.support.script_helper
    import test.support.threading_helper
    import test.support.warnings_helper  # noqa: F401

    for name in LIBRARIES.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in names:
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(f"test.test_{name}")


def gather_everything() -> None:
    """Lay all code side by side, and not only what requests run: all functions take copies."""
    numbers = itertools.count()
    written, code_layout._written = code_layout._written, lambda _code: next(numbers)
    try:
        code_layout.group_hot_code(lambda: None)
    finally:
        code_layout._written = written


def zygote(names: list[str], *, immortal_heap: bool, tests: bool) -> dict[str, object]:
    """Be a zygote, whose children run one module each; return their results by name."""
    preload(names if tests else [])
    if immortal_heap:
        gather_everything()
    heap.prepare(immortal_heap=immortal_heap)
    results = {}
    for name in names:
        result, code = in_a_child(lambda name=name: run_tests(name), 170)
        results[name] = result or {"ran": 0, "bad": [f"the process ended with {code}"]}
    return results


def suite(options: argparse.Namespace) -> None:
    """Print what fails with the immortal heap and not without; by itself, and preloaded."""
    wanted = options.modules or NAMES.split()
    names = []
    for name in dict.fromkeys(wanted):
        if importlib.util.find_spec(f"test.test_{name}") is None:
            print(f"not here: test_{name}")
        else:
            names.append(name)
    for tests in (False, True):
        begun = time.monotonic()
        found = run_in_a_zygote(names, immortal_heap=True, tests=tests)
        # What also fails without is not the immortal heap's fault.
        doubtful = [name for name in names if found[name]["bad"]]
        known = run_in_a_zygote(doubtful, immortal_heap=False, tests=tests)
        report(found, known, tests, time.monotonic() - begun)


def run_in_a_zygote(names: list[str], **how: bool) -> dict[str, dict]:
    """Return what became of these modules, by name."""
    results, code = in_a_child(lambda: zygote(names, **how), 3000)
    assert results is not None, code
    return results


def report(found, known, tests, seconds) -> None:
    """Print what did not pass in immortal children, and whether it does in others."""
    ran = sum(result["ran"] for result in found.values())
    bad = {name: result["bad"] for name, result in found.items() if result["bad"]}
    what = "the tests immortal too" if tests else "all but the tests immortal"
    print(
        f"{what}: {len(found)} modules, {ran} tests ran in {seconds:.0f} s, "
        f"{sum(map(len, bad.values()))} did not pass",
        flush=True,
    )
    for name, lines in bad.items():
        without = {line.split(": ")[0] for line in known[name]["bad"]}
        for line in lines:
            both = line.split(": ")[0] in without
            print(f"  {'with and without' if both else 'ONLY IMMORTAL'}: {line}", flush=True)


# --- requests ------------------------------------------------------------------------------------

SITE = """
import weakref
from collections import OrderedDict
import django
from django.conf import settings
settings.configure(
    DEBUG=False, SECRET_KEY="x" * 50, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions",
                    "django.contrib.messages", "django.contrib.admin"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
                "OPTIONS": {"context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages"]}}],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
django.setup()
from django.contrib import admin
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import Context, engines
from django.urls import path

class Record:
    def __init__(self, number):
        self.number, self.name, self.price = number, f"record {number}", number * 1.25
        self.tags = [f"tag {number % 100}", number % 7]

records = [Record(number) for number in range(50_000)]
by_name = {record.name: record for record in records}
recent = OrderedDict((record.name, [record, {"seen": 1}]) for record in records[:1000])
watched = weakref.WeakValueDictionary((record.number, record) for record in records[:1000])
template = engines["django"].from_string(
    "{% for r in rows %}<li>{{ r.name|upper }} {{ r.price|floatformat:2 }}"
    "{% for t in r.tags %} {{ t }}{% endfor %}</li>{% endfor %}")
asked = 0

def page(request):
    global asked
    asked += 1
    start = asked * 37 % 49_900
    rows = records[start:start + 5]
    for row in rows:
        by_name[row.name].price += 1
        recent[row.name] = [row, {"seen": asked}]
        watched[asked % 5000] = Record(asked)
    while len(recent) > 1000:
        recent.popitem(last=False)
    try:
        return HttpResponse(template.render({"rows": rows}, request))
    finally:
        {}.get("x")

urlpatterns = [path("", page), path("admin/", admin.site.urls)]
application = get_wsgi_application()
"""


def ask_many(port: int, paths: list[str], count: int) -> None:
    """Ask that many times on one connection, in turn for these paths; every answer must be 200."""
    requests = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
    with socket.create_connection(("127.0.0.1", port)) as sock:
        answers = sock.makefile("rb")
        for number in range(count):
            sock.sendall(requests[number % len(requests)])
            status, length = answers.readline(), 0
            assert b" 200 " in status, status
            while (line := answers.readline()) not in {b"\r\n", b""}:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            answers.read(length)


def requests(options: argparse.Namespace) -> None:
    """Print how the memory of one worker goes with its requests, immortal and not."""
    from service import Service, free_port

    steps = [
        step for step in (100, 1000, 10_000, 25_000, 50_000, 100_000) if step <= options.requests
    ]
    print("| Heap | " + " | ".join(f"{step:,}" for step in steps) + " | requests/s |")
    print("|---" * (len(steps) + 2) + "|")
    for heap_name in options.heaps:
        kind = "true" if heap_name == "immortal" else "false"
        with tempfile.TemporaryDirectory() as name:
            folder, port = Path(name), free_port()
            (folder / "site_of_bench.py").write_text(SITE)
            service = Service(folder)
            service.configure(
                f"app: {{target: 'wsgi:site_of_bench:application', directory: {name}, "
                f"warm_up: [/, /admin/login/]}}\nlisten: 127.0.0.1:{port}\nworkers: 1\n"
                f"memory: {{immortal: {kind}}}\n"
            )
            sizes, done, begun = [], 0, time.monotonic()
            try:
                service.start("--config", str(service.config))
                (worker,) = service.workers()
                for step in steps:
                    ask_many(port, ["/"] * 9 + ["/admin/login/"], step - done)
                    done = step
                    sizes.append(memory.usage(worker).private / MIB)
                rate = done / (time.monotonic() - begun)
                assert service.workers() == [worker]
            finally:
                service.close()
        print(
            f"| {heap_name} | " + " | ".join(f"{size:.1f}" for size in sizes) + f" | {rate:.0f} |"
        )


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("traversal")
    one.add_argument("--objects", type=int, nargs="+", default=[1_000_000, 5_000_000])
    one.set_defaults(command=traversal)
    two = commands.add_parser("suite")
    two.add_argument("modules", nargs="*", metavar="MODULE")
    two.set_defaults(command=suite)
    three = commands.add_parser("requests")
    three.add_argument("--requests", type=int, default=100_000)
    three.add_argument("--heaps", nargs="+", default=["mortal", "immortal"], metavar="HEAP")
    three.set_defaults(command=requests)
    options = parser.parse_args()
    if reason := immortal.unsupported_reason():
        sys.exit(f"not with this interpreter: {reason}")
    version = ".".join(map(str, sys.version_info[:3]))
    print(
        f"CPython {version}, {resource.getpagesize()} bytes a page, {os.cpu_count()} CPUs\n",
        flush=True,
    )
    options.command(options)


if __name__ == "__main__":
    main()
