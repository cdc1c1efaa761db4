"""Options of `run` and `config` that set settings."""

import pytest

from preforkd.cli import preforkd

FILE = "workers: 3\nlisten: [':81', ':82']\n"


@pytest.fixture
def shown(capsys, tmp_path):
    """What preforkd config shows with these options, by setting: the value and its origin; or its errors."""
    path = tmp_path / "site.yaml"
    path.write_text(FILE)

    def run(*options):
        status = preforkd.main(
            ["config", *(option.replace("FILE", str(path)) for option in options)]
        )
        output = capsys.readouterr()
        if status:
            return output.err
        rows = (line.split(maxsplit=1) for line in output.out.splitlines())
        return {setting: " ".join(rest.split()) for setting, rest in rows}

    return run


@pytest.mark.parametrize(
    ("options", "setting", "row"),
    [
        (["FILE"], "workers.count", "3 {}:1:10"),
        (["--config", "FILE"], "workers.count", "3 {}:1:10"),
        (["wsgi:a:b"], "app.target", "wsgi:a:b the argument KIND:MODULE:ATTRIBUTE"),
        (["wsgi:a:b", "--config", "FILE"], "workers.count", "3 {}:1:10"),
        (["--access-log"], "access_log.target", "stderr --access-log"),
        (["--access-log", "json"], "access_log.format", "json --access-log"),
        (["--tls", "/c,/k"], "tls.certificate", "/c --tls"),
        (["--tls", "/c,/k"], "tls.key", "/k --tls"),
        (["--tls", "/c"], "tls.key", "(empty) --tls"),
        (["--prefix", "/shop"], "http.prefix", "/shop --prefix"),
        (["--socket", "off"], "control.socket", "off --socket"),
        (["--set", "timeouts.request=30s"], "timeouts.request", "30s --set timeouts.request"),
        (["--set", "workers=5"], "workers.count", "5 --set workers"),
        (["--set", "workers.count=5", "--workers", "6"], "workers.count", "5 --set workers.count"),
        (["--set", "memory.refork.after=9"], "memory.refork.after", "9 --set memory.refork.after"),
        (
            ["--set", "app.environment={A: b=c}"],
            "app.environment",
            "A=b=c --set app.environment:1:8",
        ),
        (["--set", "hooks=a:b"], "hooks", "a:b --set hooks"),
    ],
)
def test_an_option_sets_a_setting(options, setting, row, shown, tmp_path):
    """Its origin is the option, or the file that is named in either way."""
    assert shown(*options)[setting] == row.format(tmp_path / "site.yaml")


def test_a_list_of_yaml(shown):
    """And a text that is none."""
    assert shown("--set", "app.warm_up=[/, a:b]")["app.warm_up"].startswith("[/, a:b]")
    assert shown("--set", "app.warm_up=/")["app.warm_up"].startswith("[/]")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "workers"], "--set: 'workers' is not KEY=VALUE"),
        (["--set", "=1"], "'=1' is not KEY=VALUE"),
        (["--set", "\udcff=1"], "is not KEY=VALUE"),
        (["--set", "wokers.count=1"], "--set wokers.count: unknown setting"),
        (["--set", "workers.cout=1"], "did you mean workers.count"),
        (["--set", "http=1"], "--set http: unknown setting"),
        (["--set", "app.warm_up=[/"], "--set app.warm_up:1:"),
        (
            ["--set", "timeouts.request=x"],
            "--set timeouts.request: timeouts.request: 'x' is not a duration",
        ),
        (["--access-log", "common"], "--access-log: access_log.format: 'common' is given"),
        (["--access-log", "wsgi:a:b"], "expected one of combined, json"),
        (["--prefix", "shop"], "--prefix: http.prefix: 'shop' is not a prefix"),
        (["FILE", "--config", "FILE"], "two configuration files are named"),
        (["missing.yaml"], "missing.yaml: cannot be read"),
        (["hello:app"], "'hello:app' has no kind: write wsgi:hello:app or asgi:hello:app"),
        (["hello.py"], "'hello.py' has no kind: write wsgi:hello:app or asgi:hello:app"),
        (["wsgi:hello.py:app"], "'hello.py' is the name of a file: write hello"),
        (["wsgi:hello"], "for example wsgi:hello:application"),
        (["wsgi:hello:make(x)"], "are not literals"),
    ],
)
def test_a_mistake_is_named(options, words, shown):
    """With the option, and what to write instead."""
    assert words in shown(*options)


def test_tls_is_spoken_on_all_listeners(tmp_path):
    """Of the file, of options, and the default one."""
    from preforkd.config import sources

    path = tmp_path / "site.yaml"
    path.write_text(FILE)
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    for file, options, count in ((path, {}, 2), (path, {"listen": [":1"]}, 1), (empty, {}, 1)):
        listen = sources.load(str(file), {**options, "--tls": "/c"}).settings.listen
        assert [each.tls for each in listen] == [True] * count
