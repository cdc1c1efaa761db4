"""Names and values between Python's text and the bytes that the system has.

Python decodes them by the locale's encoding, and puts surrogates for what that does not know: all that
is not ASCII, where the locale is ``C`` and the interpreter's UTF-8 mode is off.
"""

import os


def utf8(text: str) -> str:
    """Return what the system has given, for example an argument, without surrogates.

    Raises ValueError when its bytes are no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(text).decode()
        except UnicodeError:
            raise ValueError(f"{text!r} is not UTF-8") from None
    return text


def native(text: str) -> str:
    """Return a text as the system's functions take it: as UTF-8, if the locale has not all of it."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text
