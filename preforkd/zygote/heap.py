"""The preparation of the zygote's heap for the fork: a page that no process writes to stays shared."""

import contextlib
import gc
import logging
import time
from collections.abc import Iterator

from preforkd.apps import loader
from preforkd.errors import ConfigurationError
from preforkd.linux import memory
from preforkd.zygote import immortal, padding

logger = logging.getLogger("preforkd.zygote")

SETTING = "memory.immortal"


def check(*, immortal_heap: bool) -> None:
    """Refuse an immortal heap where it does not work, before the application is loaded.

    Raises ConfigurationError.
    """
    if not immortal_heap:
        return
    reason = immortal.unsupported_reason()
    if not reason:
        try:
            reason = immortal.self_test()
        except OSError as error:
            reason = f"the self-test could not run: {error}"
    if reason:
        raise _refused(reason)


def prepare(*, immortal_heap: bool) -> None:
    """Prepare the heap for sharing: called once in each zygote, before it forks its first worker.

    A garbage collection writes to the header of every object that it visits, which would copy the page in each
    worker: after garbage is collected, all objects are frozen. Free memory is returned to the kernel, or filled
    if it lies between live objects. Raises ConfigurationError if the heap cannot be made immortal.
    """
    with _collector_off():
        if immortal_heap:
            _assign_type_versions()
        # Also empties the free lists of tuples, floats and others, which padding does not fill.
        gc.collect()
        padding.fill_free_blocks()
        gc.freeze()
        if immortal_heap:
            _immortalise()
    memory.release_free()


def _immortalise() -> None:
    begun = time.monotonic()
    reason = immortal.unsupported_reason()  # the application may have made subinterpreters
    if reason:
        raise _refused(reason)
    try:
        count = immortal.immortalise()
    except OSError as error:
        raise _refused(str(error)) from error
    logger.info("%d objects are immortal now, in %.2f s", count, time.monotonic() - begun)


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


def _refused(reason: str) -> ConfigurationError:
    hint = f"leave {SETTING} out, or name another interpreter in app.python (CPython 3.12 or 3.13)"
    return loader.setting_error(SETTING, f"the heap cannot be made immortal: {reason}", hint=hint)
