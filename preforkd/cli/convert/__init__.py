"""``preforkd convert``: the configuration of gunicorn or uWSGI as a preforkd.yaml and a drop-in of its unit.

Theory of operation
===================

A conversion has three steps. **Read**: `gunicorn_file`, `command_line` and `uwsgi_file` return what was
written, as a `given.Given` for each option, with its place. Nothing of the source is executed: a value of a
gunicorn.conf.py that is not a literal is computed by `literal` if it consists of literals, arithmetic and
variables of the environment with a default; else its expression is kept, and becomes a comment.
**Translate**: `gunicorn` and `uwsgi` go through the options by tables, and put each into a `draft.Draft`: a
setting, a line of the unit, or a note on what to do instead. An option that no table has becomes a note too:
none is dropped without a word, but those that are listed as needless. **Write**: the draft is written as YAML
and read by the reader of ``preforkd check``. A value that the reader refuses is taken out and becomes a note
with the reader's message, until the rest is valid.

The defaults of the source that differ from preforkd's are written where a service would behave differently
without them: the time limit of a request under gunicorn's sync workers, and uWSGI's log of requests.
"""
