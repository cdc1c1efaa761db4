"""preforkd: a preforking server for Python under systemd.

A person who opens this folder sees the three processes, ``supervisor`` (the master), ``zygote`` and
``worker``, and below them what they are made of.  Imports go downwards only::

    cli > supervisor | zygote | worker > control | http | apps > config | linux | ipc > core > errors
"""

VERSION = "0.1.0"
