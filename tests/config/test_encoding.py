"""Conversion of names between text and bytes, in locales that encode ASCII only."""

import os
import subprocess
import sys

import pytest

from preforkd.config.encoding import native, utf8

ASCII = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_name_that_is_not_utf8_is_refused():
    """A UTF-8 name is returned unchanged; the error for a Latin-1 name shows it escaped."""
    assert utf8("caf\xe9 \u20ac") == "caf\xe9 \u20ac"
    with pytest.raises(ValueError, match=r"'caf\\udce9' is not UTF-8"):
        utf8(os.fsdecode(b"caf\xe9"))


def test_a_name_of_utf8_is_the_same_file_in_an_ascii_locale(tmp_path):
    """From the argument to text, and back to the name that os functions receive."""
    path = tmp_path / "caf\xe9 \u20ac"
    path.mkdir()
    code = (
        "import os, sys\n"
        "from preforkd.config.encoding import native, utf8\n"
        "assert sys.getfilesystemencoding() == 'ascii'\n"
        "text = utf8(sys.argv[1])\n"
        "assert text.encode().decode() == text\n"
        "os.chdir(native(text))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], env=ASCII, check=True)
    assert native(str(path)) == str(path)
