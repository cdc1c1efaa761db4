"""hello with a worker that writes nothing into its slot: what the slot costs is the difference."""

from hello import wsgi  # noqa: F401 - the application

from preforkd.ipc.slots import SlotWriter


def _nothing(*_):
    pass


for _name in ("busy", "idle", "connections", "accepted", "show"):
    setattr(SlotWriter, _name, _nothing)
