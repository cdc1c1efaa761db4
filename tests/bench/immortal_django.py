"""Whether Django's own tests pass in processes that are forked from an immortal zygote.

    python tests/bench/immortal_django.py FOLDER [LABEL ...]

with CPython 3.12 or 3.13. FOLDER is ``tests`` in the source of the Django that is installed (`pip download
--no-binary :all: --no-deps django==X`). The labels are run in groups. A zygote loads Django, makes its
heap immortal and forks the child that runs a group: once with the tests imported after the fork, once
before it, so that they are immortal themselves. What does not pass is run with a mortal heap too.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

from immortal import gather_everything, in_a_child, report

from preforkd.zygote import heap, immortal

LABELS = """
admin_checks admin_views admin_widgets aggregation annotations app_loading apps asgi async auth_tests
backends bulk_create cache check_framework conditional_processing contenttypes_tests context_processors
csrf_tests custom_managers dates db_functions defer delete dispatch expressions fixtures flatpages_tests
forms_tests foreign_object generic_relations generic_views get_or_create handlers httpwrappers i18n
inline_formsets introspection lookup m2m_signals mail many_to_many messages_tests middleware migrations
model_fields model_forms model_formsets model_inheritance modeladmin null_queries ordering pagination
prefetch_related properties queries raw_query requests_tests reverse_lookup schema select_related
serializers sessions_tests shortcuts signals signed_cookies_tests signing sitemaps_tests staticfiles_tests
string_lookup syndication_tests template_backends template_loader template_tests test_client
transactions unmanaged_models update urlpatterns urlpatterns_reverse utils_tests validation validators
view_tests wsgi
"""
GROUP = 8
"""Labels that one child runs: their tables are made once."""
PATIENCE = 900
WAYS = {"after": False, "before": True}
"""When the tests are imported: after the fork or before."""


def load_all_of_django() -> None:
    """Import whatever of Django can be imported, as a site's zygote has it."""
    import django

    for module in pkgutil.walk_packages(django.__path__, "django.", onerror=lambda _name: None):
        if ".migrations" not in module.name and "__main__" not in module.name:
            with contextlib.suppress(Exception, SystemExit):
                importlib.import_module(module.name)


def make_runner():
    """Return Django's test runner, which keeps its result."""
    from django.test.runner import DiscoverRunner

    class Runner(DiscoverRunner):
        result = None

        def suite_result(self, suite, result, **options):
            self.result = result
            return super().suite_result(suite, result, **options)

    return Runner(verbosity=0, interactive=False, parallel=1)


def run_group(labels: list[str], suite) -> dict[str, object]:
    """Be the child: run the tests of these labels, loaded before or not, and return how it went."""
    import runtests

    runner = make_runner()
    if suite is None:
        labels, _ = runtests.setup_run_tests(0, None, None, labels)
    else:
        runner.build_suite = lambda *_arguments, **_options: suite
    runner.run_tests(labels)
    result = runner.result
    bad = [
        f"{str(test)[:120]}: {text.strip().splitlines()[-1][:120]}"
        for test, text in [*result.failures, *result.errors]
    ]
    bad += [f"{test}: unexpected success" for test in result.unexpectedSuccesses]
    return {"ran": result.testsRun - len(result.skipped), "bad": bad}


def zygote(folder: Path, labels: list[str], *, immortal_heap: bool, tests: bool) -> dict:
    """Be the zygote of one group; return what its child returns."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["DJANGO_SETTINGS_MODULE"] = "test_sqlite"
    tempfile.tempdir = os.environ["TMPDIR"]  # as runtests.py does when it is the program
    silence()
    import runtests

    load_all_of_django()
    suite = None
    if tests:
        labels, _ = runtests.setup_run_tests(0, None, None, labels)
        suite = make_runner().build_suite(labels)
    if immortal_heap:
        gather_everything()
    heap.prepare(immortal_heap=immortal_heap)
    result, code = in_a_child(lambda: run_group(labels, suite), PATIENCE)
    return result or {"ran": 0, "bad": [f"{' '.join(labels)}: the child ended with {code}"]}


def silence() -> None:
    """Send what the tests print to a file that nobody reads."""
    output = tempfile.TemporaryFile()  # noqa: SIM115
    for number in (1, 2):
        os.dup2(output.fileno(), number)


def main() -> None:
    """Run all groups in both ways, and print what does not pass."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("labels", nargs="*", metavar="LABEL")
    parser.add_argument("--only", choices=WAYS, help="one of the two ways")
    options = parser.parse_args()
    if reason := immortal.unsupported_reason():
        sys.exit(f"not with this interpreter: {reason}")
    folder = options.folder.resolve()
    wanted = [name for name in options.labels or LABELS.split() if (folder / name).exists()]
    groups = [wanted[start : start + GROUP] for start in range(0, len(wanted), GROUP)]

    def run(group: list[str], **how: bool) -> dict:
        with tempfile.TemporaryDirectory() as place:
            os.environ["TMPDIR"] = place
            result, code = in_a_child(lambda: zygote(folder, group, **how), 2 * PATIENCE)
        return result or {"ran": 0, "bad": [f"the zygote ended with {code}"]}

    for tests in (False, True) if options.only is None else (WAYS[options.only],):
        begun, found, known = time.monotonic(), {}, {}
        for group in groups:
            name = " ".join(group)
            found[name] = run(group, immortal_heap=True, tests=tests)
            if found[name]["bad"]:
                known[name] = run(group, immortal_heap=False, tests=tests)
            print(f"{name}: {found[name]['ran']} tests", flush=True)
        report(found, known, tests, time.monotonic() - begun)


if __name__ == "__main__":
    main()
