"""Checkpoints whose files a framework writes, completed by what it leaves out of them.

<directory>/step-000000050/manifest.json     size and SHA-256 of each file
                           ...               the files of the framework
                           lossguard-0.pt    of each rank: random number generators, the guard's state, digests
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lossguard.checkpoints.checkpoints import RUN, Checkpoints, Contents, ReadPlace
from lossguard.checkpoints.files import fingerprint, flush, read_state, write_state
from lossguard.checkpoints.state import generators
from lossguard.vocabulary.errors import CheckpointError

DIGESTS = "digests"


class FrameworkCheckpoints(Checkpoints):
    """Checkpoints that are written while the loop waits, uploads to a URL included.

    As many processes restore one as have written it.
    """

    own: ClassVar[tuple[str, ...]] = ()
    """Names of the objects that the framework leaves out."""
    examines_what_it_reads = False  # what is in the framework's files was examined when it was saved
    holds_states = False  # they are in the framework's files alone

    @abstractmethod
    def _write_by_framework(self, folder: Path) -> None:
        """Have the framework write its files; called on every rank."""

    def _read_by_framework(self, folder: Path) -> dict[str, Any]:
        """Return what `_load_states` needs of the framework's files, if the framework does not read them itself."""
        return {}

    def _states(self, state: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: self.objects[name].state_dict() for name in self.own}
        return own | {RUN: {"generators": generators(), "state": dict(state)}}

    def _write_files(self, folder: Path, states: Mapping[str, Any]) -> dict[str, Any]:
        self.ranks.run_on_all(self._write_by_framework, folder)
        found = self.ranks.run_on_all(self._digests)
        # Of what each rank will have loaded: the framework writes what rank 0 has, all but `own`.
        digests = self.ranks.broadcast(found) | {name: found[name] for name in self.own if name in found}
        self.ranks.run_on_all(write_state, folder / self._own_file(), {**states, DIGESTS: digests})
        files = self.ranks.joined_on_rank_0(self.ranks.run_on_all(self._flush_files, folder))
        return {"format": self.formats[0], "ranks": self.ranks.size, "files": files}

    def _flush_files(self, folder: Path) -> dict[str, Any]:
        """Flush the files that this rank sees for itself or for all. Returns their fingerprints."""
        files = {}
        if self.ranks.rank == 0 or not self._place.all_ranks_see_it:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                flush(path)
                files[path.relative_to(folder).as_posix()] = fingerprint(path)
        return files

    def _read_contents(self, place: ReadPlace, manifest: Mapping[str, Any]) -> Contents:
        if manifest["ranks"] != self.ranks.size:
            raise CheckpointError(f"{manifest['ranks']} processes have written it, and these are {self.ranks.size}")
        files = manifest["files"]
        place.check_all(files, self.ranks)
        place.fetch(files, files.keys())
        own = read_state(place.folder / self._own_file())
        digests = own.pop(DIGESTS)
        return own | self._read_by_framework(place.folder), digests

    def _certified_parts(self, states: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return the objects as they are now: the states are in the framework's files."""
        parts = {name: each for name, each in self.objects.items() if name not in self._uncompared}
        return {name: (each, each.state_dict()) for name, each in parts.items()}

    def _own_file(self) -> str:
        return f"lossguard-{self.ranks.rank}.pt"
