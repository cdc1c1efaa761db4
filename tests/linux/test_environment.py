"""What the application does not inherit."""

from preforkd.linux.environment import clean


def test_nothing_is_left_that_makes_a_child_the_service():
    """sd_listen_fds, sd_notify and sd_watchdog_enabled find nothing; all else stays."""
    environ = {
        "LISTEN_FDS": "1",
        "LISTEN_PID": "2",
        "LISTEN_FDNAMES": "x",
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "PATH": "/bin",
        "INVOCATION_ID": "a",
    }
    assert clean(environ) == {"PATH": "/bin", "INVOCATION_ID": "a"}
    assert "LISTEN_FDS" in environ
