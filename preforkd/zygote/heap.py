"""The zygote's heap, made ready to be shared: what a fork copies lazily is not to be written to."""

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
    """Refuse an immortal heap where it does not hold, before the application is loaded.

    Raises ConfigurationError.
    """
    if not immortal_heap:
        return
    reason = immortal.unsupported_reason()
    if not reason:
        try:
            reason = immortal.self_test()
        except OSError as error:
            reason = f"it could not be tried: {error}"
    if reason:
        raise _refused(reason)


def prepare(*, immortal_heap: bool) -> None:
    """Make all that is loaded ready to be shared; again before each fork of a zygote's first worker.

    A collection in a worker writes to the header of every object that it visits, and so copies the
    page: what is there by now is moved out of the collector's sight, once the garbage is gone. Free
    memory goes back to the kernel, or is filled where it lies between objects. Raises
    ConfigurationError when the heap cannot be made immortal.
    """
    with _collector_off():
        if immortal_heap:
            _look_something_up_in_each_type()
        # Empties the lists of free tuples and the like as well, which padding.fill_free_blocks() would not see.
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


def _look_something_up_in_each_type() -> None:
    # A type is given a version when something is first looked up in it, and that is written into it
    # (Objects/typeobject.c). By type's own method: no code of the application runs.
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
