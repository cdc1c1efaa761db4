"""Shell completion and manual pages name every command and option of the parsers."""

import argparse
import re
import subprocess

import pytest

from preforkd.cli import preforkctl, preforkd
from preforkd.cli.generate import _ROOT
from preforkd.control import path
from preforkd.errors import EXIT_STATUSES

PROGRAMS = {"preforkd": (preforkd, 8), "preforkctl": (preforkctl, 1)}


def commands(module):
    """Return each command with its long options, and the long options before it."""
    parser = module._parser()
    (subparsers,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    listed = [action.dest for action in subparsers._choices_actions]  # without compatible names
    return {name: options(subparsers.choices[name]) for name in listed}, options(parser)


def options(parser):
    """Return the long options of a parser."""
    return {
        word for action in parser._actions for word in action.option_strings if word[:2] == "--"
    }


def complete(program, *words):
    """Return the completions of the last word in bash."""
    script = (
        f"source {_ROOT}/packaging/completion/{program}; COMP_WORDS=({' '.join(map(repr, words))}); "
        f'COMP_CWORD={len(words) - 1}; _{program}; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_shell_completes_every_command_and_option(program):
    """Each is offered in its place."""
    known, general = commands(PROGRAMS[program][0])
    assert set(known) | general <= complete(program, program, "")
    for command, wanted in known.items():
        assert wanted - {"--help"} <= complete(program, program, command, "--")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_manual_names_every_command_and_option(program):
    """None is left out."""
    module, section = PROGRAMS[program]
    text = (_ROOT / f"packaging/man/{program}.{section}").read_text().replace("\\-", "-")
    known, general = commands(module)
    wanted = set(known).union(general, *known.values()) - {"--help", "--version"}
    assert {word for word in wanted if not re.search(rf"(?<![\w-]){word}\b", text)} == set()


@pytest.mark.parametrize(
    ("file", "instance"),
    [
        ("systemd/preforkd.service", ""),
        ("systemd/preforkd@.service", "%i"),
        ("packaging/restart-services", "${name:+-$name}"),
    ],
)
def test_the_control_socket_is_where_preforkctl_looks_for_it(file, instance):
    """Units and scripts, which cannot import the rule, repeat its result."""
    wanted = path.of_service(instance)
    if instance.startswith("$"):
        wanted = wanted.replace(f"-{instance}", instance)
    assert wanted in (_ROOT / file).read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_lists_each_exit_status_with_its_meaning(program):
    """As declared, on one line each."""
    shown = PROGRAMS[program][0]._parser().format_help().splitlines()
    meanings = {status: getattr(each, program) for status, each in EXIT_STATUSES.items()}
    listed = {line.strip() for line in shown}
    assert {f"{status:<3} {meaning}" for status, meaning in meanings.items() if meaning} <= listed
