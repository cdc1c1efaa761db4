"""The immortal heap: what becomes immortal, what stays as it was, and where it is refused."""

import re
import sys
import sysconfig
from types import SimpleNamespace

import pytest

from preforkd.zygote import immortal
from tests.zygote.interpreters import run

REACHED = """
import gc, re, sys, weakref
from preforkd.zygote import immortal

class Plain:
    def __init__(self): self.text = "te" + str(3)

class Slotted:
    __slots__ = ("inner",)

class Table(dict):
    pass

def documented(argument=("a default", 12345678)):
    "A docstring."
    return "a constant", 87654321, {"built": 1}

key = "a key " + str(1)
deep = [[((("at", "the " + str(4)),),)]]
slotted = Slotted()
slotted.inner = "in a slot " + str(5)
table = Table({"sub " + str(6): 6.5})
frozen = frozenset({"fro" + str(7)})
plain = Plain()
untracked = {"only": "atoms " + str(8), "x": (1.25, b"by" + bytes([65]))}
ranges = range(10**12, 10**12 + 5, 10**11)
pattern = re.compile("pat" + str(9))
keyed = {key: 1}
gen = (number for number in [10**13])
reference = weakref.ref(plain)

gc.collect()
gc.freeze()
gc.disable()
count = immortal.immortalise()
objects = {
    "class": Plain, "its name": Plain.__name__, "instance": plain, "its text": plain.text,
    "function": documented, "code": documented.__code__, "constant": documented()[0],
    "number": documented()[1], "default": documented.__defaults__[0],
    "docstring": documented.__doc__, "line table": documented.__code__.co_linetable,
    "key": key, "deep": deep[0][0][0][0][1], "slot": slotted.inner,
    "subclass": table, "its key": next(iter(table)), "its value": table["sub 6"],
    "in a frozenset": next(iter(frozen)), "untracked": untracked["only"],
    "float": untracked["x"][0], "bytes": untracked["x"][1], "range": ranges.start,
    "pattern": pattern, "its text too": pattern.pattern, "generator": gen, "weak": reference,
    "module": sys, "dictionary of a module": globals(), "method": Plain.__init__,
}
mortal = [name for name, one in objects.items() if sys.getrefcount(one) != immortal.COUNT]
print("mortal:", mortal, "count:", count > 1000)
print("new ones are mortal:", sys.getrefcount(str(11) * 2) < 10, sys.getrefcount(Plain()) < 10)
print("again:", immortal.immortalise() < 500, "frozen:", gc.get_freeze_count() > 1000)
"""


def test_everything_that_can_be_reached_is_immortal(python):
    """Containers, atoms, what hangs on code and on keys; what is made later is mortal."""
    assert run(python, REACHED).splitlines() == [
        "mortal: [] count: True",
        "new ones are mortal: True True",
        "again: True frozen: True",
    ]


USED = """
import gc, sys, weakref
from preforkd.zygote import immortal

class Node:
    def __init__(self): self.link = None; self.values = {}
    def __del__(self): ends.append(id(self))

ends = []
old = [Node() for _ in range(100)]
names = {f"name {n}": n for n in range(1000)}
seen = set(names)
text = "x" * 50
row = (1, 2)
weak = weakref.WeakValueDictionary({n: node for n, node in enumerate(old)})
gc.collect()
gc.disable()
immortal.immortalise()
gc.enable()
ids = set(map(id, old))

# A dictionary and a set that grow, shrink and are copied; strings and tuples are copied when changed.
for n in range(5000):
    names[f"new {n}"] = n
    seen.add(f"new {n}")
for n in range(0, 1000, 2):
    del names[f"name {n}"]
    seen.discard(f"name {n}")
assert len(names) == len(seen) == 5500 and set(names) == seen == set(dict(names))
before = text
text += "y"
assert before == "x" * 50 and text.endswith("xy")
wider = row
wider += (3,)
assert row == (1, 2) and wider == (1, 2, 3)
assert sys.intern(before) == before and sys.intern("name 1") is sys.intern("name" + " 1")

# Mortal objects in immortal ones, alone and in cycles, still die, with their finalizers and callbacks.
called = []
for node in old:
    node.link = Node()
    node.link.link = node.link
    node.values["callback"] = weakref.ref(node.link, called.append)
    weakref.finalize(node.link, int)
for node in old:
    node.link = None
gc.collect()
assert len(ends) == len(called) == 100, (len(ends), len(called))
assert not ids & set(ends)

# What is immortal is never finalized; weak references to it stay.
old.clear()
gc.collect()
assert not ids & set(ends) and len(weak) == 100
for _ in range(5):
    gc.collect(0), gc.collect(1), gc.collect(2)
assert sys.getrefcount(Node) == immortal.COUNT
print("fine")
"""


def test_objects_behave_as_before(python):
    """Resizing, interning, cycles, weak references, finalizers and callbacks, and an ordinary exit."""
    assert run(python, USED) == "fine\n"


ARRAYS = """
import array, ctypes, gc, sys, types
from preforkd.zygote import immortal

# Stands for numpy: a type that the collector knows nothing of, with texts that nobody else holds.

def hide():
    hidden = ["hidden " + str(number) for number in range(3)]
    for text in hidden:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(text))
    return array.array("Q", map(id, hidden))

class ndarray:
    __slots__ = ()
    dtype = types.SimpleNamespace(kind="O")
    def ravel(self, order): return self
    def tolist(self):
        return [ctypes.cast(address, ctypes.py_object).value for address in store]

store = hide()
one = ndarray()
sys.modules["numpy"] = types.SimpleNamespace(ndarray=ndarray)
gc.collect()
gc.disable()
print([sys.getrefcount(text) < 9 for text in one.tolist()])
immortal.immortalise()
print([sys.getrefcount(text) == immortal.COUNT for text in one.tolist()])
"""


FROZEN_DICTIONARY = """
import gc, sys
from preforkd.zygote import immortal
table = frozendict({"a key " + str(1): "a value " + str(2)})
gc.disable()
immortal.immortalise()
print([sys.getrefcount(each) == immortal.COUNT for each in (table, *table, *table.values())])
"""


def test_keys_of_a_frozendict_are_immortal(python):
    """The type is new in 3.15, and not a subclass of dict."""
    if "frozendict" not in run(python, "import builtins; print(dir(builtins))"):
        pytest.skip("this interpreter has no frozendict")
    assert run(python, FROZEN_DICTIONARY) == "[True, True, True]\n"


UNFROZEN = """
import gc, logging, sys, weakref
from preforkd.zygote import immortal

class Node: pass

logging.basicConfig(stream=sys.stdout, format="%(message).27s")
gc.disable()
with immortal.open_counts() as counts:
    immortal.immortalise()
    # A mortal cycle with an immortal weak reference: unfrozen, it makes a collection of CPython 3.14 crash.
    node = Node()
    node.me = node
    node.reference = weakref.ref(node, print)
    counts.write((node.reference,))
    gc.freeze()
    del node
before = gc.get_freeze_count()
gc.unfreeze()
gc.unfreeze()
print(gc.get_freeze_count() == before)
gc.collect()
"""


def test_unfreezing_has_no_effect(python):
    """What is immortal stays out of the collector's reach, with one message for each process."""
    assert run(python, UNFROZEN).splitlines() == ["gc.unfreeze() has no effect", "True"]


def test_arrays_of_objects_are_looked_into(python):
    """numpy's are invisible to the collector; here something that looks like one."""
    assert run(python, ARRAYS) == "[True, True, True]\n" * 2


FORKED = """
import os
from preforkd.linux import memory
from preforkd.zygote import heap, immortal

data = [str(number) for number in range(300_000)]
assert heap.can_be_immortal(True)
heap.prepare(immortal_heap=IMMORTAL)
if (child := os.fork()) == 0:
    for text in data: pass
    before = memory.usage().private
    for _ in range(3):
        for text in data: pass
    os._exit(memory.usage().private >> 20)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_workers_do_not_write_to_what_they_use(python):
    """300,000 texts are gone through in a child: mortal they cost their pages, immortal nothing."""
    mortal = int(run(python, FORKED.replace("IMMORTAL", "False")))
    preserved = int(run(python, FORKED.replace("IMMORTAL", "True")))
    assert mortal >= 14
    assert preserved <= 2


def test_a_wrong_address_is_an_error_and_no_crash(python):
    """The kernel does the writing, so memory that is not there is EFAULT."""
    code = (
        "from preforkd.zygote import immortal\n"
        "with immortal.open_counts() as counts:\n"
        "    counts._writing.aim = lambda objects: counts._writing._entries.__setitem__(0, 4096)\n"
        "    try: counts.write((1,))\n"
        "    except OSError as error: print(error)\n"
    )
    assert "Bad address" in run(python, code)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this interpreter has immortal objects")
def test_311_is_refused():
    """The real interpreter that the tests run with, where it is an old one."""
    assert re.match(
        r"it needs CPython 3\.12 or later, this is 3\.11", immortal.unsupported_reason()
    )


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"implementation": SimpleNamespace(name="pypy")}, "it needs CPython, this is pypy"),
        (
            {"version_info": (3, 11, 2, "final", 0)},
            "it needs CPython 3.12 or later, this is 3.11.2",
        ),
        (
            {"version_info": (3, 14, 4, "final", 0)},
            "not tested with CPython 3.14.4, only with 3.12.0",
        ),
        ({"version_info": (3, 15, 0, "candidate", 1)}, "not tested with CPython 3.15.0"),
        ({"version_info": (3, 16, 0, "final", 0)}, "not tested with CPython 3.16.0"),
        ({"gettotalrefcount": int}, "debug build"),
        ({"getobjects": list}, "debug build"),
        ({"byteorder": "big"}, "layout of objects differs"),
        ({"interpreters": 2}, "subinterpreters"),
        ({"free": 1}, "free-threaded"),
    ],
)
def test_an_untested_interpreter_is_refused(monkeypatch, what, words):
    """Other implementations, versions, builds, machines; and none of these."""
    sound = {"version_info": (3, 13, 5, "final", 0), "interpreters": 1, "free": 0, **what}
    interpreters, free = sound.pop("interpreters"), sound.pop("free")
    monkeypatch.setattr(immortal, "_interpreters", lambda: interpreters)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: free)
    for name, value in sound.items():
        monkeypatch.setattr(sys, name, value, raising=False)
    assert words in immortal.unsupported_reason()


def test_the_first_suitable_patch_release_of_314_is_accepted(monkeypatch):
    """3.14.5 has the collector that this was tested with; the layout is that of 3.14."""
    monkeypatch.setattr(sys, "version_info", (3, 14, 5, "final", 0))
    monkeypatch.setattr(immortal, "_TUPLE_ITEMS", tuple.__basicsize__)
    assert immortal.unsupported_reason() == ""


def test_subinterpreters_are_counted(python):
    """A real one is seen, and refused."""
    code = (
        "from preforkd.zygote import immortal\n"
        "try: import _interpreters as api\n"
        "except ImportError: import _xxsubinterpreters as api\n"
        "print(repr(immortal.unsupported_reason()))\n"
        "one = api.create()\n"
        "print(immortal.unsupported_reason())\n"
        "api.destroy(one)\n"
        "print(repr(immortal.unsupported_reason()))\n"
    )
    assert run(python, code).splitlines() == [
        "''",
        "there are subinterpreters, whose objects cannot be found",
        "''",
    ]
