"""Random numbers after a fork."""

import sys
import types

from preforkd.worker.random_state import renew


def test_numpys_generator_is_seeded_anew(monkeypatch):
    """Without arguments, which takes fresh entropy; what fails there stops nobody."""
    seen = []
    module = types.ModuleType("numpy.random")
    module.seed = lambda *arguments: seen.append(arguments)
    monkeypatch.setitem(sys.modules, "numpy.random", module)
    renew()
    assert seen == [()]
    del module.seed
    renew()


def test_without_numpy_nothing_is_imported(monkeypatch):
    """It is asked for in vain."""
    monkeypatch.delitem(sys.modules, "numpy.random", raising=False)
    renew()
    assert "numpy.random" not in sys.modules
