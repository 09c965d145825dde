"""The rooms of our folders: docs/architecture.md shows the contracts of layers, and nothing imports in a circle."""

import re
import tomllib
from collections import Counter
from typing import Any

import pytest

from tests.rooms import FOLDERS, ROOT, Rooms, rooms

CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]
PACKAGE_FILES = ("__init__", "__main__")
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def contract_of(folder: str) -> dict[str, Any]:
    (found,) = [contract for contract in CONTRACTS if contract.get("containers") == [folder]]
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_page_of_the_architecture_has_the_layers_of_the_contract(folder: str) -> None:
    layers = [set(layer.split(" | ")) for layer in contract_of(folder)["layers"] if layer != "__main__"]
    (table,) = re.findall(rf"^\| `{folder}/` \|.*\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [set(re.findall(r"`(\w+)/?`", row.split("|")[1])) for row in table.splitlines()]
    assert rows == layers


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_new_child_of_a_folder_must_be_given_its_layer(folder: str) -> None:
    assert contract_of(folder)["exhaustive"] is True


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_children_of_a_folder_import_each_other_in_no_circle(folder: str) -> None:
    assert rooms(folder).circles() == []


def test_the_sdk_has_at_most_14_children() -> None:
    assert len(rooms("lossguard").imports) <= 14


def test_no_folder_has_more_than_12_modules() -> None:
    modules = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.stem not in PACKAGE_FILES]
    crowded = {folder: count for folder, count in Counter(path.parent for path in modules).items() if count > 12}
    assert not crowded


def test_a_circle_is_found_and_has_a_floor_for_each_of_its_children() -> None:
    imports = {"top": {"left"}, "left": {"middle"}, "middle": {"right"}, "right": {"left", "base"}, "base": set[str]()}
    found = Rooms(imports=imports, packages=frozenset({"base"}))
    assert found.circles() == [{"left", "middle", "right"}]
    assert found.num_floors() == 5
    assert found.num_flat_files == 4
