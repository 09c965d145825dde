"""Hooks of hatchling for `lossguard-server`: metadata and files come from the repository, or from the sdist."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

FOLDERS = ("lossguard_server", "monitor", "db", "dashboard", "trainer")
"""Folders of the repository, which are packages of the wheel."""
MEASUREMENTS = "dashboard/data/measurements"
"""Folder of the results behind docs/lesson.md in an installed package; lab_results_file of the dashboard reads it."""
EXTRAS = ("monitor", "db", "dashboard")
"""Of the repository's project: what the server depends on."""


def repository(here: Path) -> Path | None:
    """The repository around this folder; None in an unpacked sdist, which holds the folders itself."""
    return None if (here / FOLDERS[0]).is_dir() else here.parents[1]


class MetadataHook(MetadataHookInterface):
    """Takes version and dependencies from the repository's own project, so that they are said once."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        root = repository(Path(self.root))
        if root is None:
            return  # hatchling has read them from PKG-INFO
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        metadata |= {name: project[name] for name in ("version", "requires-python", "keywords")}
        version, extras = project["version"], project["optional-dependencies"]
        needed = {each for extra in EXTRAS for each in extras[extra] if not each.startswith("lossguard[")}
        metadata["dependencies"] = [f"lossguard=={version}", *sorted(needed)]
        metadata["optional-dependencies"] = {"replay": extras["torch"]}


class BuildHook(BuildHookInterface[Any]):
    """Puts the folders, and the measurements that a page of the dashboard shows, into the wheel and the sdist."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = repository(Path(self.root))
        if root is None:
            return  # [tool.hatch.build.targets.wheel] names the folders
        included = {root / name: name for name in FOLDERS}
        included |= {file: f"{MEASUREMENTS}/{file.name}" for file in (root / "docs/measurements").glob("lab-*.jsonl")}
        build_data["force_include"] |= {str(source): target for source, target in included.items()}
