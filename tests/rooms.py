"""The rooms of a folder: how many children it has, and how they import each other.

    python -m tests.rooms [CHECKOUT]            the table of this checkout, or of another one

A child is a module or a package of the folder, without `__main__`. An import inside a function counts, too.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
FOLDERS = ("lossguard", "db", "dashboard", "trainer", "monitor")


@dataclass(frozen=True, slots=True)
class Rooms:
    """The children of one folder."""

    imports: dict[str, set[str]]
    """By child, the other children that it imports."""
    packages: frozenset[str]
    """The children that are folders."""

    @property
    def num_flat_files(self) -> int:
        """Number of children that are files."""
        return len(self.imports.keys() - self.packages)

    def circles(self) -> list[set[str]]:
        """Sets of children that all import each other, directly or through others."""
        found = {frozenset(self._circle(child)) for child in self.imports}
        return [set(circle) for circle in found if len(circle) > 1]

    def num_floors(self) -> int:
        """Length of the longest chain of imports; a circle on it has as many floors as children."""

        @cache
        def height(child: str) -> int:
            circle = self._circle(child)
            below = {imported for member in circle for imported in self.imports[member]} - circle
            return len(circle) + max(map(height, below), default=0)

        return max(map(height, self.imports))

    def _circle(self, child: str) -> set[str]:
        return {child} | {other for other in self._reached(child) if child in self._reached(other)}

    def _reached(self, child: str) -> set[str]:
        reached: set[str] = set()
        waiting = [child]
        while waiting:
            new = self.imports[waiting.pop()] - reached
            reached |= new
            waiting.extend(new)
        return reached


def rooms(folder: str) -> Rooms:
    """The children of a folder, as it is found on `sys.path`."""
    graph = grimp.build_graph(folder, cache_dir=None)
    children = {child for child in graph.find_children(folder) if child != f"{folder}.__main__"}
    modules = {child: {child, *graph.find_descendants(child)} for child in children}
    owner = {module: child for child, inside in modules.items() for module in inside}

    def imported(child: str) -> Iterator[str]:
        for module in modules[child]:
            yield from (owner[each] for each in graph.find_modules_directly_imported_by(module) if each in owner)

    return Rooms(
        imports={child: set(imported(child)) - {child} for child in children},
        packages=frozenset(child for child, inside in modules.items() if len(inside) > 1),
    )


def main(checkout: str = str(ROOT)) -> None:
    sys.path.insert(0, checkout)
    print(f"{'folder':<12}{'children':>10}{'flat files':>12}{'in circles':>12}{'circles':>9}{'floors':>8}")
    for folder in FOLDERS:
        found = rooms(folder)
        circles = found.circles()
        num_in_circles = sum(map(len, circles))
        counts = f"{len(found.imports):>10}{found.num_flat_files:>12}{num_in_circles:>12}{len(circles):>9}"
        print(f"{folder + '/':<12}{counts}{found.num_floors():>8}")


if __name__ == "__main__":
    main(*sys.argv[1:])
