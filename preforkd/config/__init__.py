"""The settings: declared once, read with the place of every value, and compared at a reload.

Theory of operation
===================

**Declaration.** `settings` (with `settings_pool`, `settings_http`, `settings_tls` and `settings_websocket`, one
struct per section) declares each setting: name, type, default, bounds, help, and what a reload does with it.
`declaration.declare` puts this into the type's annotation. `fields` reads it back as `Field` records. The
reader, `etc/preforkd.yaml`, the JSON Schema and preforkd.yaml(5) are all made from these records
(`preforkd.cli.generate`), so no setting is described twice. `kinds` has what holds for stream handlers, WSGI and
ASGI; code consults the record of a kind and does not compare names.

**Reading** (`sources.load`). (1) `document` parses the YAML into a tree of texts, each with file, line and
column. No scalar is interpreted, so the type of a setting decides what a text means. (2) `reader` walks the
tree along the fields: `units`, `address`, `target` and `peers` parse the texts, `credentials` replaces
``{credential: NAME}``. (3) Options of the command line override the result. (4) `consistency` checks across
settings; it comes last, because an option may resolve a contradiction of the file, or create one. A problem
does not stop the reader: the setting keeps its default, and all problems are raised at once as a
ConfigurationError, in the order of the file. The result is a `Configuration`: the settings, their origins, and
the values that came from credentials, which every message masks.

**Which process.** The master does not read the file itself. The modules that do (YAML, the reader, its
grammars) would be a tenth of its memory, and it lives as long as the service. `reader_process` starts a child
that runs `sources.run_child`, and awaits its result: at the start before there is a loop, at a reload in the
thread ``reader``. Request and result are files in memory, so neither process can block on the other; the child
is killed after 20 s, because a file system may hang. ``preforkd check`` and ``preforkd config`` call
`sources.load` directly. The zygote receives the settings from the master as msgpack and never sees the file;
the workers inherit them by the fork.

**A reload** compares the old and the new settings (`changes`). Each setting belongs to one of three classes
(`OnReload`): *live*, the running master takes the new value; *generation*, a new generation of workers starts
with it; *restart*, it is logged and the old value stays. If only live settings differ, no worker is replaced. A
file that lost all its settings, or its application, is refused (`changes.lost_settings`): it is more often an
accident than a request for the defaults.

**To add a setting**: declare it in its section; add a row to the table in tests/config/test_kinds.py; run
``python -m preforkd.cli.generate``; use it. If its text has a grammar, add that to `reader._GRAMMARS`; if it
depends on another setting, add a check to `consistency`.

**What may not be touched.** Structs are frozen: settings are replaced, never changed. The declarations import
nothing but msgspec, since every process has them. The master imports `reader_process`, `changes` and
`configuration`, and neither `sources` nor anything below it that parses; a test checks that.
"""
