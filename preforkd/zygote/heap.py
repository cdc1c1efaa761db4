"""The preparation of the zygote's heap for the fork: a page that no process writes to stays shared."""

import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from typing import Literal

from preforkd.apps import loader
from preforkd.linux import memory
from preforkd.zygote import immortal, padding, self_test

logger = logging.getLogger("preforkd.zygote")

SETTING = "memory.immortal"


def can_be_immortal(setting: bool | Literal["auto"]) -> bool:
    """Return whether the heap is to be immortal, by memory.immortal; called before the application is loaded.

    Raises ConfigurationError if it must be (``True``) and this interpreter does not allow it.
    """
    if not setting:
        return False
    reason = immortal.unsupported_reason()
    if not reason:
        try:
            reason = self_test.run()
        except OSError as error:
            reason = f"the self-test could not run: {error}"
    if reason:
        _fail(reason, required=setting is True)
    return not reason


def prepare(*, immortal_heap: bool, required: bool = True) -> None:
    """Prepare the heap for sharing: called once in each zygote, before it forks its first worker.

    A garbage collection writes to the header of every object that it visits, which would copy the page in each
    worker: after garbage is collected, all objects are frozen. Free memory is returned to the kernel, or filled
    if it lies between live objects. Raises ConfigurationError if the heap cannot be made immortal and that is
    ``required``.
    """
    with _collector_off():
        if immortal_heap:
            _assign_type_versions()
        # Also empties the free lists of tuples, floats and others, which padding does not fill.
        gc.collect()
        padding.fill_free_blocks()
        gc.freeze()
        if immortal_heap:
            _immortalise(required=required)
    memory.release_free()


def _immortalise(*, required: bool) -> None:
    begun = time.monotonic()
    reason = immortal.unsupported_reason()  # the application may have made subinterpreters
    if not reason:
        try:
            count = immortal.immortalise()
        except OSError as error:
            reason = str(error)
    if reason:
        _fail(reason, required=required)
        return
    seconds = time.monotonic() - begun
    if required:
        logger.info("%d objects are immortal now, in %.2f s", count, seconds)
    else:
        logger.info(
            "%d objects are immortal now, in %.2f s (%s: auto; false keeps them mortal)",
            *(count, seconds, SETTING),
        )


def _assign_type_versions() -> None:
    # CPython writes a version tag into a type at the first lookup of an attribute (Objects/typeobject.c).
    # type.__getattribute__ runs no code of the application.
    objects = gc.get_objects()
    metaclasses = {kind for kind in set(map(type, objects)) if issubclass(kind, type)}
    for each in objects:
        if type(each) in metaclasses:
            with contextlib.suppress(AttributeError):
                type.__getattribute__(each, "preforkd has no such attribute")


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _fail(reason: str, *, required: bool) -> None:
    if required:
        hint = f"set {SETTING} to auto, or name another interpreter in app.python (CPython 3.12 to 3.15)"
        message = f"the heap cannot be made immortal: {reason}"
        raise loader.setting_error(SETTING, message, hint=hint)
    logger.info(
        "the heap is frozen, not immortal (%s: auto; true would refuse to start, false not try): %s",
        *(SETTING, reason),
    )
