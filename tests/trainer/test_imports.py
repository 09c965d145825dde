"""The trainer uses the SDK as any user would: only names that `lossguard` and `lossguard.torch` export."""

import ast
from collections.abc import Iterator
from pathlib import Path

import lossguard
import lossguard.torch

ROOT = Path(__file__).parents[2]
MODULES = {"torch", "hf", "lightning"}
"""Of the SDK, imported when they are used."""
EXPORTED = {"lossguard": set(lossguard.__all__) | MODULES, "lossguard.torch": set(lossguard.torch.__all__)}
FILES = sorted(path for folder in ("trainer", "demo", "examples") for path in (ROOT / folder).rglob("*.py"))


def used_names(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a file takes from the SDK."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "lossguard":
            yield from ((node.module, alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((each.name, "") for each in node.names if each.name.startswith("lossguard."))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lossguard":
            yield "lossguard", node.attr


def taken_internals(path: Path) -> list[tuple[str, str]]:
    used = sorted(set(used_names(path.read_text(encoding="utf-8"))))
    return [(module, name) for module, name in used if name not in EXPORTED.get(module, set())]


def test_a_user_of_the_sdk_takes_only_what_it_exports() -> None:
    found = {str(path.relative_to(ROOT)): taken_internals(path) for path in FILES}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_check_sees_every_way_of_taking_an_internal_name() -> None:
    source = "import lossguard.run\nfrom lossguard.spool.spool import Spool\nlossguard.guard\nlossguard.init()"
    assert set(used_names(source)) == {
        ("lossguard.run", ""),
        ("lossguard.spool.spool", "Spool"),
        ("lossguard", "guard"),
        ("lossguard", "init"),
    }
