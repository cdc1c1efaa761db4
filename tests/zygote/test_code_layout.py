"""Code that requests execute is adjacent after it was copied, and behaves as before."""

from tests.zygote.interpreters import run

SITE = """
import gc, os, sys, weakref
from preforkd.linux import memory
from preforkd.zygote import code_layout, heap

def functions():
    text = "def f{0}(x):\\n    y = x + {0}\\n    if y:\\n        return [(lambda z: z + x)(y) for _ in 'ab']\\n"
    unused = []
    for number in range(2000):
        names = {}
        exec(text.format(number), names)
        unused.append(bytes(2500))  # what an application has between two functions
        yield names[f"f{number}"]

def pages(some):
    found = set()
    for each in some:
        code = each.__code__
        found |= set(range(id(code) // 4096, (id(code) + sys.getsizeof(code)) // 4096 + 1))
    return found

known = list(functions())
used = known[::10]

def again():
    return [each(3) for each in used]

again()
"""


def test_what_runs_lies_on_few_pages_and_does_what_it_did(python):
    """Of 2,000 functions a second round runs 200: they lie on less than half as many pages then."""
    script = """
before, expected = pages(used), again()
count = code_layout.group_hot_code(again)
assert again() == expected
print(len(before), len(pages(used)), count)
"""
    before, after, count = run(python, SITE + script).split()
    assert int(before) >= 100
    assert int(after) < int(before) / 2
    assert int(count) >= 200


def test_a_process_that_was_forked_copies_less(python):
    """What a child comes to have of its own by running it, of an immortal heap, is clearly less."""
    script = """
if {gathered}:
    code_layout.group_hot_code(again)
heap.prepare(immortal_heap=True)
read, write = os.pipe()
if os.fork() == 0:
    before = memory.usage().private
    for _ in range(9):
        again()
    os.write(write, str(memory.usage().private - before).encode())
    os._exit(0)
os.wait()
print(os.read(read, 99).decode())
"""
    scattered, gathered = (
        int(run(python, SITE + script.format(gathered=gathered))) for gathered in (False, True)
    )
    assert gathered < 0.75 * scattered


def test_code_with_other_references_is_not_replaced(python):
    """Code in a list, code with a weak reference and code of a running generator stay what they are."""
    script = """
listed, weakly, free = known[1:4]
def endless():
    while True:
        yield 1
generator = endless()
next(generator)
kept = [listed.__code__]
reference = weakref.ref(weakly.__code__)
address = id(free.__code__)

def again():
    for each in (listed, weakly, free):
        each(2)
    next(generator)

code_layout.group_hot_code(again)
print(
    listed.__code__ is kept[0],
    reference() is weakly.__code__,
    endless.__code__ is generator.gi_code,
    id(free.__code__) != address,
)
"""
    assert run(python, SITE + script).split() == ["True"] * 4


def test_a_copy_is_equal_and_shared_by_all_functions_that_had_the_code(python):
    """Closures of one function, and what that one makes later, run the very same code."""
    script = """
def outer(x):
    def inner():
        return x + x  # of two types: it is never settled how it is done
    return inner
first, second = outer(1), outer("2")
value = hash(first.__code__)
address = id(first.__code__)
def again():
    return [each() for each in (first, second, outer(3))]
again()
code_layout.group_hot_code(again)
third = outer(4)
print(
    id(first.__code__) != address, hash(first.__code__) == value,
    first.__code__ is second.__code__ is third.__code__,
    again() == [2, "22", 6], third() == 8,
)
"""
    assert run(python, SITE + script).split() == ["True"] * 5


def test_where_it_is_forbidden_nothing_happens(python):
    """An audit hook that forbids it is obeyed."""
    script = """
def hook(event, arguments):
    if event == "object.__setattr__" and arguments[1] == "__code__":
        raise RuntimeError("no")
sys.addaudithook(hook)
addresses = [id(each.__code__) for each in used]
code_layout.group_hot_code(again)
print([id(each.__code__) for each in used] == addresses)
"""
    assert run(python, SITE + script) == "True\n"
