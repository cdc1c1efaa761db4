"""The conversion of whole configurations: tests/cli/convert/cases has them, and their results."""

import pytest

from preforkd.cli import preforkd
from preforkd.cli.convert import command
from preforkd.errors import ConfigurationError
from tests.cli.convert.cases import PATHS, converted, parts, result


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_configuration_becomes_settings_notes_and_a_unit(path, tmp_path):
    """preforkd check accepts the file, and it has the settings, lines and notes that were reviewed."""
    assert result(converted(path, tmp_path), tmp_path) == parts(path)[2]


def test_there_are_forty_configurations():
    """And none is converted to nothing."""
    assert len(PATHS) >= 40
    assert all(parts(path)[2].count("\n") > 2 for path in PATHS)


def test_the_command_prints_the_file_or_the_unit(capsys):
    """Both begin with their origin; what the file refuses is a note in it."""
    source = "gunicorn -u www-data -b 0.0.0.0:99999 -w 3 mysite.wsgi"
    assert preforkd.main(["convert", source]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# Converted from a command of gunicorn.")
    assert "target: wsgi:mysite.wsgi:application" in shown
    assert "# - listen[0]: 0.0.0.0:99999 is not possible: '99999' is not a port" in shown
    assert preforkd.main(["convert", "--unit", source]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1:] == ["[Service]", "User=www-data"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing.py", "nothing.py: cannot be read: No such file or directory"),
        ("gunicorn", "a command is given in quotes"),
        ("uvicorn app:app", "neither gunicorn nor uwsgi is in it"),
        ("gunicorn 'app:app", "not a command: No closing quotation"),
        ("gunicorn --workers", "expected one argument"),
        ("gunicorn --workers many app:app", "'many' is not a number"),
        ("other.txt", "neither Python nor an INI file with [uwsgi]"),
        ("bad.py", "bad.py:2:"),
        ("latin.ini", "not UTF-8"),
        ("large.ini", "larger than 1 MiB"),
    ],
)
def test_what_cannot_be_converted_is_refused(source, words, tmp_path, monkeypatch):
    """With its place, and a hint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.txt").write_text("x\n")
    (tmp_path / "bad.py").write_text("workers = 2\nbind = (\n")
    (tmp_path / "latin.ini").write_bytes(b"[uwsgi]\nuid=\xff\n")
    (tmp_path / "large.ini").write_text("[uwsgi]\n" + "#\n" * (1 << 20))
    with pytest.raises(ConfigurationError) as caught:
        command.convert(source)
    (problem,) = caught.value.problems
    assert words in f"{problem} {problem.hint}"


def test_files_that_a_command_names_are_read(tmp_path, monkeypatch):
    """gunicorn's -c, and its gunicorn.conf.py of the directory; an INI file of uWSGI. The command line wins."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gunicorn.conf.py").write_text("workers = 2\nbind = ':1'\n")
    (tmp_path / "other.py").write_text("workers = 3\nbind = ':2'\n")
    (tmp_path / "site.ini").write_text("[uwsgi]\nname = shop\nmodule = %(name).wsgi\n")
    plain = command.convert("gunicorn -b :3 app:app")
    assert (plain.values["workers.count"], plain.listen) == (2, [{"address": ":3"}])
    named = command.convert("gunicorn -c other.py app:app")
    assert (named.values["workers.count"], named.listen) == (3, [{"address": ":2"}])
    uwsgi = command.convert("uwsgi site.ini -p 4")
    assert uwsgi.values["app.target"] == "wsgi:shop.wsgi:application"
    assert uwsgi.values["workers.count"] == 4
    assert "name" not in [option for option, _ in uwsgi.notes]


def test_the_source_is_not_executed(tmp_path):
    """Neither statements nor calls of a gunicorn.conf.py."""
    mark = tmp_path / "executed"
    file = tmp_path / "gunicorn.conf.py"
    file.write_text(f"open({str(mark)!r}, 'w')\nworkers = len(str(open({str(mark)!r}, 'w')))\n")
    draft = command.convert(str(file))
    assert not mark.exists()
    assert draft.notes[0][0] == "workers"
