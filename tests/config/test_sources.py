"""Defaults, overridden by the file, overridden by options."""

import os

import pytest

from preforkd.config import sources
from preforkd.config.fields import leaves
from preforkd.config.settings import OnReload, Settings
from preforkd.errors import ConfigurationError


def test_no_file_and_no_options_are_all_defaults(monkeypatch, tmp_path):
    """The default path need not exist; an explicit path must."""
    monkeypatch.setattr(sources, "DEFAULT_PATH", str(tmp_path / "none"))
    assert sources.load(None, {}) == sources.Configuration(Settings(), {}, None)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        sources.load(str(tmp_path / "none"), {})


def test_options_override_the_file(tmp_path):
    """An option replaces the file's value and its place; problems of both are reported at once."""
    path = tmp_path / "f"
    path.write_text("workers: 3\nlisten: [':1', ':2']\nlog: {level: error}\n")
    loaded = sources.load(str(path), {"workers.count": "5", "listen": [":9"]})
    assert loaded.settings.workers.count == 5
    assert [listen.address for listen in loaded.settings.listen] == [":9"]
    assert str(loaded.origins["workers.count"]) == "--workers"
    assert str(loaded.origins["listen[0]"]) == "--listen"
    assert "listen[1]" not in loaded.origins
    assert loaded.settings.log.level == "error"
    path.write_text("wokers: 3\n")
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(path), {"workers.count": "x"})
    assert [str(problem.place) for problem in caught.value.problems] == [f"{path}:1:1", "--workers"]


def test_the_effective_settings_have_their_origins(tmp_path):
    """Every setting is listed, as it is written in the file, with its place or as a default."""
    path = tmp_path / "f"
    path.write_text("http: {max_body: 10M}\n")
    entries = {entry.setting: entry for entry in sources.effective(sources.load(str(path), {}))}
    assert entries["http.max_body"].value_text == "10M"
    assert str(entries["http.max_body"].place) == f"{path}:1:18"
    assert entries["timeouts.start"].value_text == "1min"
    assert entries["timeouts.start"].place is None
    assert entries["listen"].value_text == "127.0.0.1:8080"


def test_an_unreadable_default_file_is_not_a_missing_one(tmp_path, monkeypatch):
    """A dangling link and a directory: an error with the path, instead of the defaults."""
    path = tmp_path / "preforkd.yaml"
    monkeypatch.setattr(sources, "DEFAULT_PATH", str(path))
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=f"{path}: cannot be read: No such file"):
        sources.load(None, {})
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match=f"{path}: cannot be read: Is a directory"):
        sources.load(None, {})


def test_a_default_file_in_a_directory_without_search_permission(tmp_path, monkeypatch):
    """The error has the path and the user that needs the permission."""
    path = str(tmp_path / "preforkd.yaml")
    monkeypatch.setattr(sources, "DEFAULT_PATH", path)

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "lstat", refuse)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigurationError, match=f"{path}: .*Permission denied") as caught:
        sources.load(None, {})
    assert f"user {os.geteuid()} needs permission to read it" in caught.value.problems[0].hint


@pytest.mark.parametrize("endless", ["/dev/zero", "huge"])
def test_a_file_is_read_within_bounds(tmp_path, endless):
    """An endless device and a file larger than memory are refused as too large."""
    if endless == "huge":
        endless = str(tmp_path / "huge")
        with open(endless, "wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        sources.load(endless, {})


def test_the_list_of_problems_is_limited(tmp_path):
    """The first hundred are listed, and a note that there are more."""
    path = tmp_path / "f"
    path.write_text("".join(f"a{number}: 1\n" for number in range(9000)))
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(path), {})
    problems = caught.value.problems
    assert len(problems) == 101
    assert str(problems[99]).startswith(f"{path}:100:1: a99: unknown setting")
    assert str(problems[100]) == f"{path}:101:1: further problems are not listed"


def test_the_error_for_a_missing_file_suggests_a_similar_one(tmp_path):
    """The nearest name in its directory; none if the directory does not exist."""
    (tmp_path / "shop.yaml").touch()
    with pytest.raises(ConfigurationError, match=r"No such file .*did you mean shop\.yaml\?"):
        sources.load(str(tmp_path / "shpo.yaml"), {})
    with pytest.raises(ConfigurationError, match=r"No such file .*restore it, or name an"):
        sources.load(str(tmp_path / "none" / "shop.yaml"), {})


@pytest.mark.parametrize(("count", "kept"), [(99, 99), (100, 100), (101, 101), (102, 101)])
def test_a_hundred_problems_are_listed_whole(tmp_path, count, kept):
    """The next one stands for all that follow."""
    path = tmp_path / "f"
    path.write_text("".join(f"a{number}: 1\n" for number in range(count)))
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(path), {})
    problems = caught.value.problems
    assert len(problems) == kept
    whole = [problem for problem in problems if problem.setting]
    assert len(whole) == min(count, 100)


def test_problems_come_in_the_order_of_the_file_and_then_of_the_options(tmp_path):
    """Whichever check found them: an administrator fixes them from top to bottom."""
    path = tmp_path / "f"
    path.write_text("log: {level: x}\nworkers: {min: 2}\nlog: 3\nwokers: 3\n")
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(path), {"workers.max": "x"})
    places = [str(problem.place) for problem in caught.value.problems]
    assert places == [f"{path}:1:14", f"{path}:2:16", f"{path}:3:1", f"{path}:4:1", "--max"]


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("app.target", "the argument KIND:MODULE:ATTRIBUTE"),
        ("log.level", "--log-level"),
        ("workers.count", "--workers"),
        ("timeouts.drain", "--drain"),
        ("hooks", "--hooks"),
    ],
)
def test_an_options_place_is_its_name_on_the_command_line(setting, place):
    """As it was written there."""
    with pytest.raises(ConfigurationError) as caught:
        sources.load(os.devnull, {setting: "a b"})
    (problem,) = caught.value.problems
    assert (str(problem.place), problem.setting) == (place, setting)


def test_an_option_changes_its_setting_and_no_other(tmp_path):
    """Of a section, of a section in it, and one that stands alone."""
    path = tmp_path / "f"
    path.write_text("timeouts: {start: 5s}\nmemory: {limit: 1M}\n")
    options = {"timeouts.drain": "7s", "hooks": "site", "app.target": "wsgi:a:b"}
    settings = sources.load(str(path), options).settings
    assert (settings.timeouts.start, settings.timeouts.drain) == (5.0, 7.0)
    assert (settings.hooks, settings.app.target) == ("site", "wsgi:a:b")
    assert settings.memory.limit == 1 << 20
    assert settings.timeouts.boot == Settings().timeouts.boot


def test_the_effective_settings_show_each_form_of_value(tmp_path):
    """Listeners by address or name, variables, lists, and what is empty."""
    path = tmp_path / "f"
    path.write_text(
        "listen: [':1', {name: web}]\napp: {environment: {A: 1, B: x y}, warm_up: [/, /a]}\n"
    )
    loaded = sources.load(str(path), {})
    shown = {entry.setting: entry.value_text for entry in sources.effective(loaded)}
    assert shown["listen"] == ":1, web"
    assert shown["app.environment"] == "A=1 B=x y"
    assert shown["app.warm_up"] == "[/, /a]"
    assert shown["hooks"] == "(empty)"
    assert [entry.setting for entry in sources.effective(loaded)] == [
        leaf.path for leaf in leaves()
    ]
    kinds = {entry.setting: entry.on_reload for entry in sources.effective(loaded)}
    assert kinds["log.level"] is OnReload.LIVE


@pytest.mark.parametrize("text", ["", "~", "null"])
def test_an_option_with_nothing_in_it_is_a_value(text):
    """What leaves the default in a file was written on the command line on purpose, and is refused."""
    for options in ({"workers.count": text}, {"listen": [text]}):
        with pytest.raises(ConfigurationError):
            sources.load(os.devnull, options)
