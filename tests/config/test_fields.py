"""The settings as data."""

from preforkd.config.fields import Form, get, leaves
from preforkd.config.settings import Settings


def test_every_setting_is_declared_in_full():
    """Each has help that ends with a full stop, a default, and bounds if it is a number."""
    for leaf in leaves():
        assert leaf.help.endswith("."), leaf
        assert leaf.default == get(Settings(), leaf.path)
        if leaf.form in {Form.INTEGER, Form.DURATION, Form.SIZE, Form.MODE}:
            assert leaf.ge is not None, leaf
            assert leaf.le is not None, leaf
