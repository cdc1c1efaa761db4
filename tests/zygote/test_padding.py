"""Objects that are created after free blocks were filled are on new pages."""

import os
import subprocess
import sys

PAGES = """
from preforkd.zygote import padding

def make():
    return [b"%040d" % number for number in range(100)]  # 80 bytes each

def pages(objects):
    return {id(each) // 4096 for each in objects}

objects = [make() for _ in range(200)]
survivors = [each for some in objects for each in some[::3]]
del objects[:]
"""


def run(script: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PAGES + script],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_new_objects_share_no_page_with_those_that_live():
    """Without padding they are scattered over many pages of live objects; with it they are on few new ones."""
    script = "new = make(); print(len(pages(new) & pages(survivors)), len(pages(new)))"
    shared, _ = map(int, run(script).split())
    assert shared > 2
    shared, own = map(int, run("assert padding.fill_free_blocks() > 100_000; " + script).split())
    assert shared == 0
    assert own <= 4


def test_larger_objects_share_few_pages_with_those_that_live():
    """Of more than 512 bytes, from malloc(3): with padding, most are on new pages."""
    script = """
survivors = []
for some in [[b"%0700d" % number for number in range(300)] for _ in range(10)]:
    survivors += some[::3]
del some
if FILL:
    assert padding.fill_free_blocks() > 500_000
new = [b"%0700d" % number for number in range(100)]
print(len(pages(new) & pages(survivors)))
"""
    scattered, filled = (int(run(f"FILL = {fill}" + script)) for fill in (0, 1))
    assert scattered > 50
    assert filled < scattered / 2


def test_filling_again_adds_little_up():
    """The previous filler is freed first: each call takes a few more pools than the one before, at most."""
    script = """
first = padding.fill_free_blocks()
for _ in range(9):
    last = padding.fill_free_blocks()
print(first, last)
"""
    first, last = map(int, run(script).split())
    assert first > 100_000
    assert (last - first) / 9 < 128 * 1024


def test_another_allocator_is_left_alone():
    """The C library's own lays memory out in another way."""
    assert run("print(padding.fill_free_blocks())", PYTHONMALLOC="malloc") == "0\n"
