"""Tests mirror modules: tests/db/steps/test_reader.py tests db/steps/reader.py; a change finds its tests by name."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"

SYSTEM_TESTS = {
    "dashboard/test_hostile_runs.py": "every page, report and frame on runs with extreme values",
    "dashboard/test_journeys.py": "people at the dashboard, in a real browser",
    "deploy": "the files in deploy/, which are no modules",
    "gpu": "what runs on one CUDA device",
    "lossguard/cli/test_documented_fields.py": "the JSON of the commands, as docs/reference/json.md lists it",
    "lossguard/launch/test_hf_restarts.py": "the Trainer of transformers under a launcher, and a collector",
    "lossguard/test_exported_members.py": "every public name of the SDK",
    "lossguard/hf/test_private_names.py": "the private names of transformers that the adapter uses",
    "monitor/detection/test_advisory_signals.py": "advisory signals through the whole detection",
    "monitor/detection/test_events.py": "random events through every state machine of the detection",
    "ranks": "several processes that train one run together",
    "reliability": "whole processes under faults of the network and of the machine",
    "test_audit.py": "the audit of the web pages, a tool of the tests",
    "test_docs.py": "the documentation",
    "test_examples.py": "the examples as programs",
    "test_launch.py": "launcher, collector and an unchanged script as processes",
    "test_lesson.py": "the numbers of docs/lesson.md",
    "test_loop.py": "trainer, collector and store as processes that are killed",
    "test_metric_registry.py": "every place that follows from the metric registry",
    "test_mirror.py": "the layout of the tests",
    "test_packaging.py": "the two wheels",
    "test_readme.py": "the README",
    "test_rooms.py": "the layout of our folders, and the page of the architecture",
    "test_scheduling.py": "which test files are imported, and in which order",
    "test_recomputed_steps.py": "the recomputed-step check from a trainer's process to the store",
    "test_vocabulary.py": "the words of all files",
    "test_ways.py": "the files that a metric, an order, a report and a page enter",
    "trainer/test_imports.py": "what users of the SDK import from it",
}
"""File or folder below tests/ -> what it tests, where that is no single module."""


def modules_of(test: Path) -> Iterator[Path]:
    """The files that may be the module of tests/<folder>/test_<name>.py; `test_main` is that of `__main__`."""
    folder = ROOT / test.relative_to(TESTS).parent
    name = test.stem.removeprefix("test_")
    yield folder / f"{name}.py"
    yield folder / name / "__init__.py"
    for module in sorted(folder.glob("*.py")):  # a part of a module may have a file of its own: test_<module>_<part>.py
        if name.startswith(f"{module.stem}_"):
            yield module
    if name == "main":
        yield folder / "__main__.py"


def is_system_test(test: Path) -> bool:
    path = test.relative_to(TESTS)
    return any(str(each) in SYSTEM_TESTS for each in (path, *path.parents))


def test_every_test_file_belongs_to_the_module_of_its_name() -> None:
    """Move the tests to the file of their module, or say in the table why not."""
    files = sorted(TESTS.rglob("test_*.py"))
    misplaced = [file for file in files if any(map(Path.is_file, modules_of(file))) == is_system_test(file)]
    assert [str(file.relative_to(TESTS)) for file in misplaced] == []


def test_every_entry_of_the_table_still_exists() -> None:
    assert [path for path in SYSTEM_TESTS if not (TESTS / path).exists()] == []


def test_no_module_imports_from_a_test_file() -> None:
    """Helpers that tests share stand in plain modules."""
    lines = [line for file in TESTS.rglob("*.py") for line in file.read_text(encoding="utf-8").splitlines()]
    assert [
        line for line in lines if line.startswith("from tests.") and ".test_" in line.partition(" import ")[0]
    ] == []
