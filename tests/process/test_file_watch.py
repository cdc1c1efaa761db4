"""preforkd run --watch: a saved file is served, a broken one is not."""

import os

import pytest

from tests.process.service import ask, free_port

APP = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"{word}"]
"""


@pytest.fixture
def watched(service):
    """A service that watches its application and its configuration; serving one."""
    port = free_port()
    service.address = ("127.0.0.1", port)
    service.module = service.folder / "site" / "watched.py"
    service.module.parent.mkdir()
    service.module.write_text(APP.format(word="one"))
    service.text = (
        f"app: {{target: 'wsgi:watched:application', directory: {service.module.parent}}}\n"
        f"listen: 127.0.0.1:{port}\nworkers: 1\n"
    )
    service.configure(service.text)
    compile_ = {"PYTHONDONTWRITEBYTECODE": ""}  # as outside of tests
    return service.start("--config", str(service.config), "--watch", environ=compile_)


def generation(number):
    """Hold when this generation serves alone, and nothing is reloading."""
    return lambda status: (
        [row["generation"] for row in status["generations"]] == [number]
        and status["state"] == "serving"
    )


def test_what_is_saved_is_served(watched):
    """Also after another save of the same size and second: compiled code of before is not used."""
    second = watched.module.stat().st_mtime
    for number, word in enumerate(("two", "six", "ten"), start=2):
        new = watched.module.with_suffix(".tmp")
        new.write_text(APP.format(word=word))
        os.utime(new, (second, second))
        new.replace(watched.module)  # as many editors save
        watched.until(generation(number))
        assert ask(watched.address).endswith(word.encode())
    assert f"app.watch: {watched.module} changed: reloading" in watched.log


@pytest.mark.logs("SyntaxError")
def test_a_broken_save_changes_nothing_and_the_next_one_mends_it(watched):
    """The log has the traceback; what served before serves on."""
    watched.module.write_text("def application(:\n")
    status = watched.until(lambda status: status["last_reload"] is not None)
    assert not status["last_reload"]["ok"]
    assert "SyntaxError" in watched.log
    assert "generation 1 keeps serving" in watched.log
    assert ask(watched.address).endswith(b"one")
    watched.module.write_text(APP.format(word="two"))
    watched.until(generation(3))
    assert ask(watched.address).endswith(b"two")


def test_a_change_of_the_configuration_is_applied(watched):
    """A live setting without new workers, any other by a new generation."""
    watched.configure(watched.text + "limits: {requests: 1000}\n")
    watched.until(lambda _: "changed without new workers: limits.requests" in watched.log)
    watched.configure(watched.text + "hooks: watched\nlimits: {requests: 1000}\n")
    watched.until(lambda _: "watched has none of the hooks" in watched.log)
    watched.configure(watched.text.replace("workers: 1", "workers: 2"))
    status = watched.until(lambda status: len(status["workers"]) == 2)
    assert status["generations"][-1]["generation"] == 1
