"""preforkctl: its output on a terminal and as JSON, its exit statuses, and which service it finds."""

import json
import os

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from preforkd.cli import preforkctl
from preforkd.control import path
from preforkd.control.client import NotRunningError
from tests.control.backend import BAD, MEMORY, VIEW, serving

EXPECTED = """\
preforkd 1.2, serving: 2 of 2 workers ready, 1 busy, generation 3
  Main PID: 77, up 1d 2h
   Workers: 2 of 2, elastic, 2 to 8
    Config: /etc/preforkd.yaml
  Listener: [::]:80 (http, from systemd)
  Listener: unix:/x (bound by preforkd)
Generation: 3, current, 2 workers, zygote 100 ready
   Problem: only 1 of 2 workers serve since 14:03:12; 1 is starting
    Reload: TIME failed: it broke; see the log, fix the cause and reload again

SLOT  PID  GEN  STATE            AGE  REQUESTS  CONNECTIONS
   1  101    3  busy for 2.3s: GET /a  5h 7min     10401           12
   2    -    3  forking           0.1s         0            0"""


def words(text):
    """Return the words of each line: the widths of the columns do not matter here."""
    return [line.split() for line in text.split("\n")]


def test_the_status_as_text():
    """Every line that an administrator looks for, in order."""
    import re

    text = preforkctl.render(to_builtins(VIEW))
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    assert words(text) == words(EXPECTED)
    rows = text.split("\n")[-3:]
    assert (
        len({row.index(word) for row, word in zip(rows, ["STATE", "busy", "forking"], strict=True)})
        == 1
    )


def test_more_workers_than_configured_are_named_as_such():
    """While a smaller size takes effect, the line does not read 4 of 2."""
    text = preforkctl.render({**to_builtins(VIEW), "ready": 4})
    assert "Workers: 4, 2 more than configured, elastic, 2 to 8" in text


MEMORY_TABLE = """\
PROCESS   PID  GEN    USS    PSS  SHARED  GROWTH
worker 1  101    3   9.0M  30.0M   91.0M    1.0M
zygote    100    3   1.0M  20.0M   94.0M       -
master     77    -  11.0M  16.0M   17.0M       -

total 66.0M (sum of PSS); as 1 unrelated processes: about 120.0M
not read: worker 102: Permission denied"""


def test_the_table_of_memory():
    """Each process, the sum, the estimate, and what could not be read."""
    assert preforkctl.render_memory(to_builtins(MEMORY)) == MEMORY_TABLE
    partly = {**to_builtins(MEMORY), "unrelated": None, "problems": []}
    assert preforkctl.render_memory(partly).endswith("\ntotal 66.0M (sum of PSS)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.96, "10.0s"), (61, "1min 1s"), (3600, "1h"), (100_000, "1d 3h")],
)
def test_spans(seconds, text):
    """The two largest units."""
    assert preforkctl.span(seconds) == text


def test_the_commands(tmp_path, capsys):
    """status, reload and stop over a socket; exit statuses by blame."""
    path = str(tmp_path / "s")
    with serving(path) as backend:
        assert preforkctl.main(["--socket", path, "status"]) == 0
        assert "2 of 2 workers ready" in capsys.readouterr().out
        assert preforkctl.main(["--socket", path, "status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["pid"] == 77
        assert preforkctl.main(["--socket", path, "memory"]) == 0
        assert "total 66.0M" in capsys.readouterr().out
        assert preforkctl.main(["--socket", path, "memory", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["pss"] == 66 << 20
        assert preforkctl.main(["--socket", path, "reload", "--fresh"]) == 0
        shown = capsys.readouterr().out
        assert shown == "generation 4 is serving\nneeds a restart: log.target\n"
        for size, requested in (
            ("7", 7),
            ("+1", "by 1"),
            ("-2", "by -2"),
            ("auto", None),
        ):
            assert preforkctl.main(["--socket", path, "scale", size]) == 0
            assert backend.scaled == requested
            assert capsys.readouterr().out == "5 workers\n"
        backend.answer = BAD
        assert preforkctl.main(["--socket", path, "reload"]) == 69
        shown = capsys.readouterr().err
        assert shown == "preforkctl: it broke\nTraceback\nhint: mend it\n"
    assert preforkctl.main(["--socket", path, "status"]) == 75
    assert "no preforkd listens" in capsys.readouterr().err


def test_wrong_usage():
    """Exit status 2, from argparse."""
    with pytest.raises(SystemExit) as caught:
        preforkctl.main(["dance"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit):
        preforkctl.main(["scale", "many"])


def test_the_error_for_a_stopped_service_lists_running_ones(monkeypatch, capsys, tmp_path):
    """Named by an option or by $RUNTIME_DIRECTORY; nothing is sent to the others."""
    shop = "/run/preforkd-shop/io.preforkd.Manager"
    monkeypatch.setattr(path, "running", lambda environ: list(environ.values()) or [shop])
    for arguments, folder in (
        (["--system", "reload"], ""),
        (["--instance", "nope", "reload"], ""),
        (["reload"], str(tmp_path / "gone")),
    ):
        monkeypatch.setattr(os, "environ", {"RUNTIME_DIRECTORY": folder} if folder else {})
        assert preforkctl.main(arguments) == 75
        error = capsys.readouterr().err
        assert "no preforkd listens on " in error
        assert "hint: start it, or name a running one: --instance shop\n" in error


def test_a_service_must_be_named_unless_only_one_runs(monkeypatch, capsys):
    """Several are listed with their options, and nothing is done. If none runs, other users' are listed."""
    monkeypatch.setattr(path, "services", list)
    monkeypatch.setattr(path, "running", lambda environ: ["/run/user/7/preforkd/x.77"])
    assert preforkctl.main(["status"]) == 75
    assert "/run/user/7/preforkd/x.77" in capsys.readouterr().err
    found = ["/tmp/x.77", "/run/preforkd/io.preforkd.Manager"]
    found.append("/run/preforkd-shop/io.preforkd.Manager")
    monkeypatch.setattr(path, "running", lambda environ: found)
    assert preforkctl.main(["stop"]) == 2
    assert capsys.readouterr().err == (
        "preforkctl: several services run; name one of them:\n"
        "  --socket /tmp/x.77\n  --system\n  --instance shop\n"
    )
    monkeypatch.setattr(path, "running", lambda environ: [])
    monkeypatch.setattr(path, "services", lambda: ["/run/preforkd", "/run/preforkd-shop"])
    monkeypatch.setattr(path, "answers", lambda one: "shop" in one)
    assert preforkctl.main(["reload"]) == 75
    assert capsys.readouterr().err == (
        "preforkctl: no preforkd of this user runs\n"
        "hint: start it, or name its control socket; --instance shop belongs to another user\n"
    )


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--socket", "/a"], "/a"),
        (["--system"], "/run/preforkd/io.preforkd.Manager"),
        (["--instance", "shop"], "/run/preforkd-shop/io.preforkd.Manager"),
    ],
)
def test_only_the_named_service_is_called(monkeypatch, options, wanted):
    """Whatever else runs, and whatever $RUNTIME_DIRECTORY is."""
    connected = []

    class Client:
        def __init__(self, path):
            connected.append(path)
            raise NotRunningError(path)

    monkeypatch.setattr(preforkctl, "Client", Client)
    monkeypatch.setattr(path, "running", lambda environ: ["/b"])
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/c")
    assert preforkctl.main([*options, "status"]) == 75
    assert connected == [wanted]


def test_escape_sequences_do_not_reach_the_terminal(tmp_path, capsys):
    """Those of a request line, a problem, the result of a reload, and an error."""
    path, evil = str(tmp_path / "s"), "\x1b]0;title\x07\nforged \x9b2J"
    with serving(path) as backend:
        worker = replace(VIEW.workers[0], busy_with=evil)
        view = replace(VIEW, workers=[worker], problems=[evil], status=evil)
        backend.status = lambda: view
        backend.answer = replace(BAD, message=evil, detail=evil, hint=evil)
        for command in ("status", "reload"):
            preforkctl.main(["--socket", path, command])
    out, err = capsys.readouterr()
    assert out.count(r"\x1b]0;title\x07\nforged \x9b2J") == 3
    assert "\x1b" not in out + err
    assert "\x9b" not in out + err
