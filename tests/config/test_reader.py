"""From documents to settings: every problem at once, each with its place and a hint."""
# ruff: noqa: E501 - each problem is one line, and that is the claim

import json
import textwrap

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from preforkd.config.document import Scalar, read_document
from preforkd.config.fields import leaves
from preforkd.config.reader import Reader
from preforkd.config.settings import ListenSettings, MemorySettings, ReforkSettings, Settings
from preforkd.errors import Place


def read(text):
    """Return settings, problems as lines, and origins."""
    document, problems = read_document(textwrap.dedent(text).encode(), "f")
    reader = Reader()
    settings = reader.settings(document)
    reader.check_consistency(settings)
    return settings, [str(problem) for problem in problems + reader.problems], reader.origins


def test_every_form_of_value():
    """One of each, in each notation."""
    settings, problems, origins = read(
        """\
        app:
          target: wsgi:site:make()
          environment: {PORT: 8080, DEBUG: on, EMPTY: ''}
        listen:
        - 127.0.0.1:80
        - {address: 'unix:/run/x', mode: 0600, backlog: 10, name: web}
        workers: 3
        timeouts: {drain: 1min 30s, start: 500ms}
        reload: {surge: all}
        http: {max_body: 256M}
        log:
          level: "debug"
        """
    )
    assert not problems
    assert settings.app.environment == {"PORT": "8080", "DEBUG": "on", "EMPTY": ""}
    assert settings.listen == (
        ListenSettings(address="127.0.0.1:80"),
        ListenSettings(address="unix:/run/x", mode=0o600, backlog=10, name="web"),
    )
    assert settings.workers.count == 3
    assert settings.timeouts.drain == 90
    assert settings.timeouts.start == 0.5
    assert settings.http.max_body == 256 << 20
    assert str(origins["timeouts.drain"]) == "f:8:19"
    assert str(origins["listen[1]"]) == "f:6:3"


@pytest.mark.parametrize(
    "text", ["{after: 2000 requests}", "{after: 2000}", "2000", "2000 requests"]
)
def test_refork_in_each_way_of_writing_it(text):
    """The section, with and without the unit, and its one number alone."""
    settings, problems, origins = read(f"memory: {{limit: 200M, refork: {text}}}\n")
    assert not problems
    assert settings.memory == MemorySettings(limit=200 << 20, refork=ReforkSettings(after=2000))
    assert origins["memory.refork.after"].line == 1


def test_keys_without_a_value_keep_the_defaults():
    """A section or a setting whose value was deleted is no error."""
    assert read("app:\nworkers:\nlisten: ~\ntimeouts: {drain: }\n")[:2] == (Settings(), [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("wrokers: 3", "f:1:1: wrokers: unknown setting (did you mean workers?)"),
        ("drain: 3", "f:1:1: drain: unknown setting (it exists as timeouts.drain)"),
        ("app: {xyz: 3}", "f:1:7: app.xyz: unknown setting (settings here: target, directory, python, preload, watch, environment, warm_up, warm_up_required, check)"),
        ("workers: yes", "f:1:10: workers: 'yes' is given; expected a whole number from 1 to 1024, or auto"),
        ("workers: aut", "f:1:10: workers: 'aut' is given; expected a whole number from 1 to 1024, or auto (did you mean auto?)"),
        ("workers: 0", "f:1:10: workers: 0 is out of range; expected a whole number from 1 to 1024, or auto"),
        ("workers: 1.5", "f:1:10: workers: '1.5' is given; expected a whole number from 1 to 1024, or auto"),
        ("workers: [3]", "f:1:10: workers: a list is given; expected a whole number from 1 to 1024, or auto"),
        ("workers: {min: 2, max: 8, count: 3}", "f:1:34: workers.count: count and max exclude each other (remove one of them: count is for a fixed size, min and max are for an elastic pool)"),
        ("workers: {min: 2}", "f:1:16: workers.min: min requires max (set workers.max as well; a fixed size is workers.count)"),
        ("workers: {min: 9, max: 8}", "f:1:16: workers.min: 9 exceeds workers.max, 8 (set at most workers.max)"),
        ("timeouts: {request: 2s, slow: 3s}", "f:1:31: timeouts.slow: never reached: timeouts.request kills the worker first (set less than timeouts.request)"),
        ("timeouts: 30", "f:1:11: timeouts: expected a mapping (with keys: start, boot, drain, request, slow, heartbeat, drain_notice)"),
        ("timeouts: {drain: 1:30}", "f:1:19: timeouts.drain: '1:30' is not a duration, for example 30s, 1min 30s or 500ms (the default is 30s)"),
        ("timeouts: {drain: 2d}", "f:1:19: timeouts.drain: 2d is out of range; expected a duration from 0s to 1d"),
        ("memory: {refork: {after: 5min}}", "f:1:26: memory.refork.after: '5min' is not a number of requests, for example 2000 requests (the default is 0; it may be once, too)"),
        ("log: {level: warn}", "f:1:14: log.level: 'warn' is given; expected one of debug, info, warning, error (did you mean warning?)"),
        ("listen: 8080", "f:1:9: listen[0]: '8080' has no colon: write :8080 for all addresses, or HOST:8080 (see listen in preforkd.yaml(5))"),
        ("listen: []", "f:1:9: listen: the list is empty (expected an address, or a list of addresses or mappings)"),
        ("listen: [{}]", "f:1:10: listen[0]: an address or a name is required (for example :8080)"),
        ("listen: [':80', ':80']", "f:1:17: listen[1]: duplicate address :80"),
        ("listen: {address: ':80', mode: 0999}", "f:1:32: listen[0].mode: '0999' is not a mode of octal digits, for example 0660"),
        ("app: {target: site}", "f:1:15: app.target: 'site' is not KIND:MODULE:ATTRIBUTE, for example wsgi:mysite.wsgi:application"),
        ("app: {target: 'asgi:a:b', warm_up: [/]}", "f:1:36: app.warm_up: an application of kind asgi cannot be sent requests before the fork (name functions: MODULE:FUNCTION)"),
        ("app: {warm_up: [a.b]}", "f:1:17: app.warm_up: 'a.b' is neither MODULE:FUNCTION nor a path, for example /"),
        ('http: {server: "a\\r\\nb: c"}', r"f:1:16: http.server: 'a\r\nb: c' is not a valid header value: use printable ASCII characters"),
        ('http: {server: "préfork ✓"}', "f:1:16: http.server: 'préfork ✓' is not a valid header value: use printable ASCII characters"),
        ("app: {check: health}", "f:1:14: app.check: 'health' is not a path, for example /health"),
        ("app: {check: 'https://a/'}", "f:1:14: app.check: 'https://a/': the trial request is sent without TLS, write http://"),
        ("app: {check: /é}", "f:1:14: app.check: '/é': write spaces and non-ASCII characters as %XX"),
        ("hooks: a b", "f:1:8: hooks: 'a b' is not the name of a module, for example mysite.wsgi"),
        ("app: {environment: {A-B: 1}}", "f:1:21: app.environment.A-B: 'A-B' is not a valid name of a variable"),
        ("app: {environment: [A]}", "f:1:20: app.environment: expected a mapping of names to values (write NAME: value)"),
    ],
)  # fmt: skip
def test_each_problem_is_one_exact_line(text, line):
    """Place, setting, the value and its fault, the allowed values, the nearest name."""
    assert read(text)[1] == [line]


def test_all_problems_are_reported_at_once():
    """Three mistakes in three sections, and a duplicate key, are four problems."""
    _, problems, _ = read("workers: x\nlog: {level: y}\nlog: 3\nhttp: {spool: z}\n")
    assert len(problems) == 4


WORDS = st.sampled_from(
    [leaf.name for leaf in leaves()]
    + [
        "app",
        "listen",
        "timeouts",
        "http",
        "all",
        "auto",
        "3",
        "30s",
        "on",
        "~",
        "[]",
        "{}",
        ":",
        "x",
    ]
)


@hypothesis_settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.recursive(
        WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4)
    )
)
def test_any_structure_is_read_or_refused(value):
    """No document makes the reader raise; whatever it returns is a Settings."""
    import yaml

    settings, _, _ = read(yaml.safe_dump({"app": value} if not isinstance(value, dict) else value))
    assert isinstance(settings, Settings)


@pytest.mark.parametrize(("text", "fine"), [
    ("preforkd", True), ("nginx/1.2 (a b)", True), ("~!\t%", True), ("", True), (" a", False), ("a ", False),
    ("\ta", False), ("é", False), ("a\x7f", False), ("a\0b", False), ("a\nb", False), ("a\n", False),
])  # fmt: skip
def test_only_valid_header_values_are_accepted(text, fine):
    """Printable ASCII, with blanks inside: nothing that ends a line, and nothing that cannot be encoded."""
    problems = read(f"http: {{server: {json.dumps(text)}}}")[1]
    assert bool(problems) is not fine


def test_a_variable_that_is_too_long_for_execve_is_refused():
    """Linux limits NAME=value with its NUL: the longest that fits is accepted, one byte more is not."""
    fits = 128 * 1024 - len("A=\0")
    settings, problems, _ = read("app: {environment: {A: " + "x" * fits + "}}")
    assert not problems
    assert len(settings.app.environment["A"]) == fits
    _, (problem,), _ = read("app: {environment: {A: " + "x" * (fits + 1) + "}}")
    assert problem.startswith("f:1:24: app.environment.A: 131073 bytes exceed the limit of Linux")


def test_a_path_that_the_locale_cannot_encode_is_refused(monkeypatch):
    """Except those that are encoded as UTF-8 in any locale."""

    def ascii_only(text):
        return text.encode("ascii")

    monkeypatch.setattr("os.fsencode", ascii_only)
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    _, problems, _ = read(
        """\
        app: {directory: /srv/caf\u00e9}
        control: {socket: /run/caf\u00e9}
        listen: ["unix:/run/caf\u00e9"]
        """
    )
    assert [problem.partition(": ")[2].partition(":")[0] for problem in problems] == [
        "control.socket",
        "listen[0]",
    ]
    assert all("(ascii); set LC_ALL=C.UTF-8" in problem for problem in problems)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("workers: 1", True),
        ("workers: 1024", True),
        ("workers: 1025", False),
        ("timeouts: {drain: 1d}", True),
        ("timeouts: {drain: 86401s}", False),
        ("timeouts: {drain: 0}", True),
        ("control: {mode: 0}", True),
        ("control: {mode: 0777}", True),
    ],
)
def test_a_value_exactly_at_its_bounds(text, fits):
    """The least and the most may be written; what is beyond is out of range."""
    problems = read(text)[1]
    assert bool(problems) is not fits
    assert all("out of range" in problem for problem in problems)


@pytest.mark.parametrize("word", ["true", "Yes", "ON", "false", "No", "off"])
def test_flags_are_words(word):
    """Of YAML 1.1 and systemd, in any case; a number is none."""
    settings, problems, _ = read(f"memory: {{immortal: {word}}}")
    assert not problems
    assert settings.memory.immortal is (word.lower() in {"true", "yes", "on"})
    for other in ("1", "y", "maybe"):
        (problem,) = read(f"memory: {{immortal: {other}}}")[1]
        assert f"'{other}' is given; expected true or false, or auto" in problem
    assert read("memory: {immortal: auto}")[0].memory.immortal == "auto"


def test_a_refork_by_number_or_by_a_word():
    """In short and in full; another word is refused with what is expected."""
    for text in ("refork: once", "refork: {after: once}"):
        assert read(f"memory: {{{text}}}")[0].memory.refork.after == "once"
    assert read("memory: {refork: 50 requests}")[0].memory.refork.after == 50
    (problem,) = read("memory: {refork: twice}")[1]
    assert "'twice' is not a number of requests" in problem
    assert problem.endswith("(the default is 0; it may be once, too)")


@pytest.mark.parametrize("text", ["+3", "3", "003"])
def test_whole_numbers(text):
    """With a sign, or zeros before; eighteen digits are the most that are read at all."""
    assert read(f"workers: {text}")[0].workers.count == 3
    assert "out of range" in read("workers: " + "9" * 18)[1][0]
    assert "is given" in read("workers: " + "9" * 19)[1][0]


def test_an_override_replaces_the_places_of_the_previous_value():
    """Those of list entries too; an override with a problem keeps the previous value."""
    reader = Reader()
    document, _ = read_document(b"listen: [':1', ':2']\nworkers: 3\n", "f")
    reader.settings(document)
    changed = {}
    reader.override(changed, "workers.count", Scalar("x", True, Place("--workers")))
    assert changed == {}
    assert [problem.setting for problem in reader.problems] == ["workers.count"]
    reader.override(changed, "workers.count", Scalar("5", True, Place("--workers")))
    reader.override(changed, "listen", Scalar(":9", True, Place("--listen")))
    assert changed == {"workers.count": 5, "listen": (ListenSettings(address=":9"),)}
    assert str(reader.origins["workers.count"]) == "--workers"
    listeners = [key for key in reader.origins if key.startswith("listen")]
    assert sorted(listeners) == ["listen", "listen[0]"]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("listen: {address: ':1', tls: on}\ntls: {certificate: /c, certificates: {a.example: /a, '*.b.example': /b, xn--c: /c}}", []),
        ("tls: {certificates: {a_b: /a, '*': /b, 'a.*.b': /c, 'ä': /d, a.: /e}}", ["tls.certificates.a_b", "tls.certificates.*", "tls.certificates.a.*.b", "tls.certificates.ä", "tls.certificates.a."]),
        ('tls: {certificates: {a: [x], b: "/x\\0"}}', ["tls.certificates.a", "tls.certificates.b"]),
        ("app: {environment: {'A=B': 1, 1A: 2, _A1: 3}}", ["app.environment.A=B", "app.environment.1A"]),
        ("app: {environment: {A: [1], B: {x: 1}}}", ["app.environment.A", "app.environment.B"]),
        ('app: {environment: {A: "x\\0"}}', ["app.environment.A"]),
        ('app: {directory: "/x\\0"}', ["app.directory"]),
        ("listen: [[':1']]", ["listen[0]"]),
        ("listen: [{name: a}, {name: a}, {name: b}]", ["listen[1]"]),
        ("listen: [{address: ':1'}, {name: a}, {address: ':2'}]", []),
        ("listen: [{address: x, name: web}]", ["listen[0]"]),
        ("app: {warm_up: [/, x y, /b]}", ["app.warm_up"]),
        ("proxy: {trusted: [10.0.0.0/8, nonsense]}", ["proxy.trusted"]),
        ("hooks: ''", []),
        ("workers: {count: {x: 1}}", ["workers.count"]),
        ("memory: {refork: [1]}", ["memory.refork"]),
    ],
)  # fmt: skip
def test_which_setting_is_to_blame(text, settings):
    """Each of several, and none where there is nothing wrong."""
    _, problems, _ = read(text)
    assert [problem.split(": ")[1] for problem in problems] == settings


def test_valid_values_are_kept_if_others_have_problems():
    """The invalid ones have their defaults, so that all problems are found."""
    settings, problems, _ = read("workers: x\ntimeouts: {drain: 7s, boot: y}\n")
    assert len(problems) == 2
    assert settings.workers == Settings().workers
    assert settings.timeouts.drain == 7.0
    assert settings.timeouts.boot == Settings().timeouts.boot
