"""The tree as a whole: style, types, layers, and files that derive from others."""

import ast
import subprocess
import sys
from pathlib import Path

import preforkd

ROOT = Path(preforkd.__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def run(*command: str) -> None:
    """Demand that a tool has nothing to say."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    """The code follows the rules of pyproject.toml."""
    run(str(BIN / "ruff"), "check", "--no-cache", ".")


def test_the_code_is_formatted():
    """Nobody argues about layout."""
    run(str(BIN / "ruff"), "format", "--no-cache", "--check", ".")


def test_mypy_strict_is_clean():
    """Every function of the product is typed, and the types fit."""
    run(sys.executable, "-m", "mypy", "--strict", "-p", "preforkd")


def test_imports_go_downwards_only():
    """The layers of the design hold, and the core imports nothing that touches the world."""
    run(str(BIN / "lint-imports"), "--no-cache")


def imports_of(path: Path) -> set[str]:
    """Return the modules of preforkd that a module imports, anywhere in its text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preforkd"):
            assert node.module is not None
            for alias in node.names:
                inner = ROOT / f"{node.module}.{alias.name}".replace(".", "/")
                whole = inner.with_suffix(".py").exists() or inner.is_dir()
                found.add(f"{node.module}.{alias.name}" if whole else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("preforkd.")}
    return found


def test_no_circle_of_imports():
    """No module imports itself by way of others."""
    graph = {}
    for path in (ROOT / "preforkd").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = imports_of(path)
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' > '.join((*way, name))}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert len(done) > 50


TESTED_ELSEWHERE = {
    "cli/zygote.py": "the ways from role to role: tests/process, by every worker there is",
    "config/configuration.py": "a record: test_sources and test_reader_process compare it",
    "config/declaration.py": "how settings are declared: test_fields reads it back",
    "config/settings.py": "declarations: test_generate, test_reader and test_consistency go through all",
    "config/settings_http.py": "declarations, as config/settings.py",
    "config/settings_pool.py": "declarations, as config/settings.py",
    "config/settings_tls.py": "declarations, as config/settings.py",
    "config/settings_websocket.py": "declarations, as config/settings.py",
    "control/varlink.py": "declarations: test_dispatch and test_introspection go through all",
    "control/records.py": "records without a line of code",
    "core/events.py": "records without a line of code",
    "worker/asgi/shared.py": "a record and an interface",
    "supervisor/main.py": "starts the master: tests/process, by its signals and its control socket",
}
"""Modules without tests of their own name, and what proves them."""


def test_each_module_has_its_tests():
    """Who changes a module finds its tests by its name; an exception has a reason, and is one."""
    without = set()
    for path in (ROOT / "preforkd").rglob("*.py"):
        name = path.relative_to(ROOT / "preforkd")
        mirror = ROOT / "tests" / name.with_name(f"test_{name.name}")
        statements = ast.parse(path.read_text()).body
        if len(statements) > 1 and path.read_text().count("\n") > 10 and not mirror.exists():
            without.add(str(name))  # not a package that has only its theory of operation
    assert without == set(TESTED_ELSEWHERE)


def test_the_docs_name_no_path_of_a_developers_machine():
    """What is committed is of use elsewhere."""
    ours = ("preforkd", "tests", "packaging", "systemd", "etc", ".ci")
    paths = [
        path
        for folder in ours
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    for path in [*paths, ROOT / "README.md", ROOT / "pyproject.toml"]:
        assert "/work" + "/" not in path.read_text(errors="ignore"), path
