"""Conversion between text and the bytes of arguments and file names, whatever the locale is.

Python decodes these bytes by the locale's encoding, with surrogates for those that it cannot decode: every byte
that is not ASCII if the locale is ``C`` and the interpreter's UTF-8 mode is off. PEP 383, PEP 540
"""

import os


def utf8(text: str) -> str:
    """Return a text from the system, for example an argument, decoded as UTF-8.

    Raises ValueError if its bytes are not UTF-8.
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
    """Return a text for os functions, which encode it as UTF-8 if the locale cannot encode it."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text
