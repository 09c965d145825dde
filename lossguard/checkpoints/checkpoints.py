"""Checkpoints that restore a run exactly, and that detect damage.

    <directory>/step-000000050/manifest.json     step, size and SHA-256 of each file and of itself, and digests of each
                                                 object's state
                               model.pt ...      the state_dict of each object
                               run.pt            random number generators and the guard's state
    <directory>/discarded/step-...               some that the last rollback discarded, for a replay of its incident
    <directory>/uncertified/step-...             a few that are never restored, because their state is damaged (NaN)

A checkpoint has a certificate in its manifest if its state is worth returning to (see `certificate`). Only
those with a certificate are restored, count towards `keep` and replace older ones.

Several ranks write a checkpoint together: see `sharded.checkpoint`. Any number of ranks can load it.

`save` copies the state to host memory and returns; a thread writes it. A checkpoint is always complete: on a disk
(`local_folder`) it is written to a temporary folder, flushed and renamed; at a URL (`remote.folder`) it is there when
its manifest is, which is written last.
"""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from lossguard.checkpoints.certificate import (
    CERTIFICATE,
    OptimizerStepCounts,
    copies_in,
    damage_in,
    differing_copies,
)
from lossguard.checkpoints.completeness import missing
from lossguard.checkpoints.files import UNCERTIFIED, num_kept, read_state, steps_to_delete, write_state
from lossguard.checkpoints.local_folder import LocalFolder, ReadFolder
from lossguard.checkpoints.memory import HostCopier, MemoryCheckpoints, restorable
from lossguard.checkpoints.remote.files import RemoteFiles, is_remote, local_path
from lossguard.checkpoints.remote.folder import RemoteFolder
from lossguard.checkpoints.remote.reading import RemoteReadFolder
from lossguard.checkpoints.state import (
    Digest,
    Stateful,
    check_digests,
    digest,
    expected_bytes,
    generators,
    keep_types,
    restore_generators,
    unwrapped,
)
from lossguard.run.collectives import is_sharded
from lossguard.run.ranks import Ranks, current_ranks
from lossguard.run.torch_ranks import TorchRanks
from lossguard.spool.folders import LOCK_WAIT
from lossguard.vocabulary.errors import CheckpointError, CheckpointTooOld, ConfigurationError, logger
from lossguard.vocabulary.states import Tier
from lossguard.vocabulary.wording import form, plural, size

FORMAT: Any = 2
SHARDED_FORMAT: Any = 3
"""Written by several ranks."""
DIVIDED_FORMAT: Any = 4
"""Written by several ranks, each with an index of its own."""
RUN = "run"
Place = LocalFolder | RemoteFolder
ReadPlace = ReadFolder | RemoteReadFolder
"""A checkpoint that is being read there."""
Contents = tuple[dict[str, Any], dict[str, Digest]]
"""The states in a checkpoint and their digests, by name."""
KEEP_DISCARDED = 3
"""Newest checkpoints of a discarded branch that stay; of the older ones, one per doubling of the age, as always."""


class Checkpoints:
    """Checkpoints of `objects`, such as model=, optimizer=, scheduler=, in one directory, or at one URL.

    `directory`: a path, or a URL that fsspec reaches (s3://bucket/run), with `storage_options` for its filesystem. What
    is saved at a URL lies in a folder of this machine's disk (`staging`) until it is uploaded: at most one checkpoint,
    or this rank's part of it. While an upload takes longer than a guard's interval between checkpoints, those that are
    due are left out, so that the loop does not wait.
    `keep`: how many of the newest checkpoints stay; of the older ones, one per doubling of the age and the first stay.
    `keep_bytes`: the space for them; None: half of the disk's space that other files leave, and no bound at a URL. If
    it is too small for `keep`, a warning says so, and fewer stay: the newest always, and those that a guard has pinned.
    `memory`: how many of the newest states also stay in host memory, one every `memory_every` steps: a guard saves them
    and restores from them without the disk. They are lost with the process. Each takes as much memory as a checkpoint
    takes of the disk (with several ranks: this rank's part of it).
    `blocking`: whether `save` returns only when the checkpoint is durable. Otherwise it takes the time, and the
    memory, of one copy of the state in host memory.
    `uncompared`: more objects by name, which are saved and restored like the others, but not compared afterwards: those
    whose `load_state_dict` does not take all of the state back, such as callbacks of a framework.
    `left_out`: objects that stay out of the checkpoints on purpose: without it, a guard refuses to begin where the
    scheduler of an optimizer, a GradScaler or an EMA of this process was not given.
    `ranks`: the processes that train together, by default those of torch.distributed if it is initialised. They must
    see the same directory (or URL), and call `save`, `settle(wait=True)`, `load` and `discard_after` at the same place.

    One process at a time (or one group of ranks) writes a directory: a guard locks it until its loop has ended, and
    `save` and `discard_after` lock it while they write.

    Raises ValueError for an invalid argument, for a directory that cannot be created, and for a URL that cannot be
    opened and listed.
    """

    formats: ClassVar[tuple[Any, ...]] = (FORMAT, SHARDED_FORMAT, DIVIDED_FORMAT)
    """Formats that a manifest may name."""
    examines_what_it_reads: ClassVar[bool] = True
    """True if a state that is read must be undamaged, too; False where a framework reads it."""
    holds_states: ClassVar[bool] = True
    """True if `hold` copies all that a checkpoint restores; False where a framework writes some of it."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 20,
        keep_bytes: int | None = None,
        memory: int = 0,
        memory_every: int = 10,
        blocking: bool = False,
        staging: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        ranks: Ranks | None = None,
        uncompared: Mapping[str, Stateful] | None = None,
        left_out: Iterable[Any] = (),
        **objects: Stateful,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        if keep_bytes is not None and keep_bytes < 1:
            raise ValueError(f"keep_bytes={keep_bytes} must be at least 1")
        if memory < 0 or memory_every < 1:
            raise ValueError(f"memory={memory} must not be below 0, and memory_every={memory_every} not below 1")
        if both := objects.keys() & (uncompared or {}).keys():
            raise ValueError(f"{', '.join(sorted(both))}: give an object by its name or in uncompared, not both")
        objects |= uncompared or {}
        if RUN in objects:
            raise ValueError(f"an object cannot be called {RUN!r}: the file {RUN}.pt holds the guard's state")
        self.keep = keep
        self.keep_bytes = keep_bytes
        self._fewest_said: int | None = None  # how many stay for lack of space, as the last warning has said
        self.blocking = blocking
        self.objects = {name: unwrapped(name, instance) for name, instance in objects.items()}
        self.ranks = _ranks_of(self.objects) if ranks is None else ranks
        self._restored_from: ReadPlace | None = None  # while the objects load
        own_disk = None if staging is None else Path(staging)
        self._place = self._open_place(self.ranks.broadcast(directory), own_disk, storage_options)
        self.durable_tier = self._place.tier
        """The tier of `durable_steps`."""
        self.directory: Any = self._place.path
        """A Path, or a URL as text."""
        self._uncompared = frozenset(uncompared or {})
        self._left_out = tuple(left_out)
        self._pinned: frozenset[int] = frozenset()
        self.memory_every = memory_every if memory else None
        """Steps between two states in host memory; None: there are none."""
        self._memory = MemoryCheckpoints(memory) if memory else None
        self._host_copier = HostCopier()
        self._writing: threading.Thread | None = None
        self._has_ended = False  # a background save, since the last call of `settle`
        self._problems: list[Exception] = []
        self._uncertified: list[tuple[int, str]] = []  # since the last call of `take_uncertified`
        self._step_counts = OptimizerStepCounts()
        self.doubt: Callable[[int], str | None] = lambda step: None
        """Returns another reason against the state before `step`, as a clause. A guard sets it; every save asks."""

    def _open_place(self, directory: str | os.PathLike[str], staging: Path | None, options: Any) -> Place:
        """Open what a path or a URL names. `staging` and `options` are for a URL."""
        if is_remote(directory):
            return RemoteFolder(RemoteFiles(str(directory), options), self.ranks, staging)
        if options is not None:
            raise ValueError(f"{directory} is no URL of another place: leave out storage_options")
        return LocalFolder(local_path(os.fspath(directory)), self.ranks)

    def lock(self, *, wait: float = LOCK_WAIT) -> None:
        """Keep other processes from writing the directory until `unlock`; all ranks call it, and rank 0 locks.

        Waits at most `wait` seconds for another process, then raises ConfigurationError, which names it.
        """
        self._join()
        self._place.lock(wait=wait)

    def unlock(self) -> None:
        """Let other processes write the directory, once a background save has ended."""
        self._place.unlock()

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending. Whether a checkpoint is intact is checked when it is loaded."""
        return sorted({*self.durable_steps(), *self.memory_steps()})

    def memory_steps(self) -> list[int]:
        """Steps with a state in host memory, ascending."""
        return [] if self._memory is None else self._memory.steps()

    def durable_steps(self) -> list[int]:
        """Steps with a complete checkpoint in the directory, ascending."""
        return self._place.steps()

    def check(self, step: int) -> str | None:
        """Return why the files of the checkpoint of `step` cannot be restored; None if all have their full size.

        Their checksums are compared only when it is loaded.
        """
        return self._place.check(step)

    def check_complete(self, positioned: Sequence[Any] = (), ordering: Sequence[Any] = ()) -> None:
        """Raise ConfigurationError for an optimizer, scheduler, GradScaler or EMA that belongs to the objects.

        Also for a sampler of `ordering` that was not given, and for an object that was given and is among `positioned`,
        whose position a guard keeps itself. Looks through all objects of this process: some milliseconds.
        """
        for name, instance in self.objects.items():
            if any(instance is part for part in positioned):
                kept = ", ".join(f"{other}={other}" for other in self.objects if other != name)
                raise ConfigurationError(
                    f"guard.steps keeps the position of {name} itself, and restoring it too would move it twice: "
                    f"Checkpoints(.., {kept})"
                )
        if found := missing(self._saved_objects(), self._left_out, ordering):
            kinds = " and ".join(f"the {kind.__name__}" for kind, _ in found)
            mended = self._with_arguments([name for _, name in found])
            raise ConfigurationError(f"the checkpoints leave out {kinds}: {mended}")

    def _saved_objects(self) -> Iterable[Any]:
        return self.objects.values()

    def _with_arguments(self, names: Sequence[str]) -> str:
        """The line that gives these objects too."""
        arguments = list(self.objects)
        for name in names:
            num = sum(each.startswith(name) for each in arguments)
            arguments.append(f"{name}{num + 1}" if num else name)
        return f"Checkpoints(.., {', '.join(f'{name}={name}' for name in arguments)})"

    def save_in_memory(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep a copy of what `save` would write. Raises what an object's `state_dict` raises, and MemoryError.

        The ranks do not wait for each other. If it fails on one of them, none will restore this step from memory.
        A damaged state is not kept: see `take_uncertified`.
        """
        states = self._states(state)
        parts = self._certified_parts(states)
        if (problem := damage_in(parts, self._step_counts, step) or self.doubt(step)) is None:
            assert self._memory is not None
            self._memory.save(step, states)
        else:
            self._uncertified.append((step, problem))

    def hold(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A copy in host memory of what `save` would write, whatever it is worth: for `take_back`."""
        return dict(HostCopier().copy(self._states(state)))

    def take_back(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Load what `hold` has returned, and return its `state`. Raises CheckpointMismatch as `load` does."""
        states = restorable(held, self.objects)
        self._load_objects(states[RUN]["state"]["step"], states, {name: digest(states[name]) for name in self.objects})
        return dict(states[RUN]["state"])

    def take_uncertified(self) -> list[tuple[int, str]]:
        """Return step and reason of each save since the last call whose state is damaged, and so never restored."""
        taken, self._uncertified = self._uncertified, []
        return taken

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save all objects, the random number generators and `state` (tensors, plain values), as of before `step`.

        Waits for the previous save. With `blocking`, raises OSError when the disk fails and CheckpointError when an
        object's state could not be read back safely; otherwise `settle` raises them later.
        """
        self._join()
        if isinstance(self._place, RemoteFolder):
            self._place.enable_uploads()
        states = self.ranks.run_on_all(self._collect_states, state)
        if self.blocking:
            self._write(step, states)
            return
        # Not a daemon thread: a process that ends first completes the checkpoint.
        self._writing = threading.Thread(
            target=self._write_in_background, args=(step, states), name="lossguard-checkpoint"
        )
        self._writing.start()

    def settle(self, wait: bool = False) -> bool:
        """Return True if a background save has ended since the last call; with `wait`, wait for it first.

        Raises the exception with which it failed: OSError (the disk is full, or read-only) or CheckpointError.
        """
        if wait or (self._writing is not None and not self._writing.is_alive()):
            self._join()
        has_ended, self._has_ended = self._has_ended, False
        if self._problems:
            raise self._problems.pop(0)
        return has_ended

    def is_uploading(self) -> bool:
        """Return True if `save` would wait for the network: an earlier checkpoint is still on its way to a URL."""
        return self.durable_tier is Tier.REMOTE and self._writing is not None and self._writing.is_alive()

    def stop_uploading(self) -> None:
        """Give up what is on its way to a URL, so that nothing has to wait for it: that step cannot be restored."""
        if isinstance(self._place, RemoteFolder):
            self._place.stop_uploads()

    def pin(self, steps: Iterable[int]) -> None:
        """Keep the checkpoints of these steps, whatever their age, until another call names others."""
        self._pinned = frozenset(steps)

    def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
        """Restore the newest intact checkpoint at or before `step` and return the `state` it was saved with.

        Skips damaged checkpoints, with a warning. Raises CheckpointError, before anything has changed, when none is
        intact (CheckpointTooOld: none from step `not_before` on) or the directory cannot be listed, and
        CheckpointMismatch when a loaded object differs from the saved one: learning rates, moments, step counts and
        weights are compared. Exceptions of an object's own `load_state_dict` are not caught.
        """
        self._join()
        in_memory = set.intersection(*map(set, self.ranks.gather(self.memory_steps())))
        for candidate in reversed([known for known in self.ranks.ask_rank_0(self._listed) if known <= step]):
            if candidate < not_before:
                raise CheckpointTooOld(f"no checkpoint from step {not_before} to step {step} is intact")
            with self._place.reading(candidate) as place:
                try:
                    read = self._read_memory if candidate in in_memory else partial(self._read, place)
                    states, digests = self.ranks.run_on_all(self._undamaged, read, candidate)
                except CheckpointError as problem:
                    if self.ranks.rank == 0:
                        logger.warning("skipping the checkpoint of step %d: %s", candidate, problem)
                    continue
                self._restored_from = place
                self.ranks.run_on_all(self._load_objects, candidate, states, digests)
                return dict(states[RUN]["state"])
        raise CheckpointError(f"{self.directory} holds no intact checkpoint at or before step {step}")

    def _listed(self) -> list[int]:
        try:
            return self.steps()
        except OSError as problem:  # a disk of the network that is away
            raise CheckpointError(f"{self.directory} cannot be listed: {problem}") from problem

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints of later steps: after a rollback they belong to a discarded branch.

        A few move to `discarded` and replace those of the previous rollback: one of them holds the state in which the
        incident began.
        """
        self._join()
        if self._memory is not None:
            self._memory.discard_after(step)
        later = [known for known in self.durable_steps() if known > step]
        self._place.discard(later, set(later).difference(steps_to_delete(later, keep=KEEP_DISCARDED)))

    def _join(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing, self._has_ended = None, True

    def _write_in_background(self, step: int, states: Mapping[str, Any]) -> None:
        try:
            self._write(step, states)
        except Exception as problem:  # `settle` raises it in the loop's thread
            if not (isinstance(self._place, RemoteFolder) and self._place.is_stopped):
                self._problems.append(problem)

    def _collect_states(self, state: Mapping[str, Any]) -> dict[str, Any]:
        states = self._states(state)
        return states if self.blocking else self._host_copier.copy(states)

    def _states(self, state: Mapping[str, Any]) -> dict[str, Any]:
        states = {name: instance.state_dict() for name, instance in self.objects.items()}
        return states | {RUN: {"generators": generators(), "state": dict(state)}}

    def _write(self, step: int, states: Mapping[str, Any]) -> None:
        problem = self._damage_on_any_rank(step, states)
        if problem is not None and not isinstance(self._place, LocalFolder):
            return  # a URL keeps no damaged ones
        with self._place.writing(step) as folder:
            manifest = self._write_files(folder, states)
            if problem is not None:
                assert isinstance(self._place, LocalFolder)
                manifest |= {"step": step, UNCERTIFIED: problem}
                self.ranks.ask_rank_0(partial(self._place.set_aside, folder, step, manifest))
                return
            if isinstance(self._place, RemoteFolder):
                self.ranks.run_on_all(self._place.upload, folder)
            self.ranks.run_on_all(self._finish, folder, step, manifest | {"certificate": CERTIFICATE})

    def _damage_on_any_rank(self, step: int, states: Mapping[str, Any]) -> str | None:
        """Return why this checkpoint gets no certificate, the same on all ranks, and remember it; None: it gets one."""
        parts, problem, (digests, balance) = self.ranks.run_on_all(self._examine, step, states)
        found = self.ranks.gather((problem, balance))
        problem = None
        if sum(balance for _, balance in found) and not any(each for each, _ in found):
            held = self.ranks.gather_on_rank_0(digests)
            problem = self.ranks.broadcast(differing_copies(held))
            found = self.ranks.gather((damage_in(parts), 0))  # in the copies that nobody has looked at, too
        for rank, (each, _) in reversed([*enumerate(found)]):
            if each is not None:
                problem = each if self.ranks.size == 1 else f"rank {rank}: {each}"
        if problem is not None:
            self._uncertified.append((step, problem))
        return problem

    def _examine(self, step: int, states: Mapping[str, Any]) -> tuple[Any, str | None, tuple[dict[str, int], int]]:
        parts = self._certified_parts(states)
        problem = damage_in(parts, self._step_counts, step, self.ranks) or self.doubt(step)
        return parts, problem, copies_in(parts, self.ranks)

    def _certified_parts(self, states: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return the objects that a certificate is about, with their state."""
        parts = self.objects.items()
        return {name: (each, states[name]) for name, each in parts if name in states and name not in self._uncompared}

    def _undamaged(self, read: Callable[[int], Contents], step: int) -> Contents:
        """Read a checkpoint. Raises CheckpointError if its state is damaged."""
        states, digests = read(step)
        if self.examines_what_it_reads and (problem := damage_in(self._certified_parts(states))) is not None:
            raise CheckpointError(problem)
        return states, digests

    def _write_files(self, folder: Path, states: Mapping[str, Any]) -> dict[str, Any]:
        """Write all files but the manifest; return the content of the manifest."""
        if isinstance(self.ranks, TorchRanks):
            # Loads torch.distributed.checkpoint.
            from lossguard.checkpoints.sharded.checkpoint import OWN, has_divided_index, own_states, write_sharded

            objects = {name: states[name] for name in self.objects}
            of_rank = {**states[RUN], OWN: own_states(self.objects, objects, self.ranks)}
            files = write_sharded(folder, objects, of_rank, self.ranks)
            layout = DIVIDED_FORMAT if has_divided_index(files) else SHARDED_FORMAT
            return {"format": layout, "ranks": self.ranks.size, "files": files}
        files = {f"{name}.pt": write_state(folder / f"{name}.pt", content) for name, content in states.items()}
        return {"format": FORMAT, "files": files, "objects": {name: digest(states[name]) for name in self.objects}}

    def _finish(self, folder: Path, step: int, manifest: Mapping[str, Any]) -> None:
        """Make a checkpoint of the files in `folder`, and delete those that are no longer needed."""
        if self.ranks.rank == 0:
            self._place.publish(folder, step, {"step": step, **manifest})
            self._place.delete(self._steps_to_delete(manifest))

    def expected(self, every: int, until: int) -> tuple[int, int]:
        """Return how many checkpoints stay that are saved every `every` steps up to `until`, and about their bytes.

        Those that an incident needs, and those that a rollback discards, are not counted.
        """
        num, num_bytes = self._num_kept(-(-until // every) + 1), expected_bytes(self._parts())
        num = min(num, self._num_that_fit(num_bytes, num))
        return num, num * num_bytes

    def _num_kept(self, num: int) -> int:
        return num_kept(num, keep=self.keep)

    def _parts(self) -> Iterable[Any]:
        """Models and optimizers, if need be among others: the bytes of a checkpoint."""
        return self.objects.values()

    def _num_that_fit(self, num_bytes: int, num: int) -> int:
        """Return how many checkpoints of this size may stay, at least 1; warn if they are fewer than `num`."""
        most, bound = self.keep_bytes, "keep_bytes"
        if most is None:
            if not isinstance(self._place, LocalFolder):
                return sys.maxsize
            free = shutil.disk_usage(self._place.path).free
            most, bound = (free + len(self.durable_steps()) * num_bytes) // 2, "half of the disk's room (keep_bytes=)"
        fitting = max(1, most // max(1, num_bytes))
        if fitting < min(num, self._fewest_said or num) and self.ranks.rank == 0:
            self._fewest_said = fitting
            logger.warning(
                "%s: keep=%d needs %s, %s is %s: %s",
                *(self.directory, self.keep, size(num * num_bytes), bound, size(most)),
                f"{plural(fitting, 'checkpoint')} {form(fitting, 'stays', 'stay')}",
            )
        return fitting

    def _steps_to_delete(self, manifest: Mapping[str, Any]) -> list[int]:
        most = self._num_that_fit(sum(file["bytes"] for file in manifest["files"].values()), self.keep)
        return steps_to_delete(self.durable_steps(), keep=self.keep, most=most, pinned=self._pinned)

    def _load_objects(self, step: int, states: Mapping[str, Any], digests: Mapping[str, Digest]) -> None:
        """Load the states into the objects, verify them, and restore the generators."""
        self._step_counts.forget()
        self._load_states(step, states)
        for name, found in self._digests().items():  # some objects share state (a schedule and its optimizer)
            check_digests(name, step, digests[name], found)
        if states[RUN]["generators"] is not None:
            restore_generators(states[RUN]["generators"])

    def _load_states(self, step: int, states: Mapping[str, Any]) -> None:
        for name, instance in self.objects.items():
            instance.load_state_dict(states[name])
            keep_types(instance, states[name])

    def _digests(self) -> dict[str, Digest]:
        """Return the digests of this rank's part of all objects that are compared."""
        compared = {name: instance for name, instance in self.objects.items() if name not in self._uncompared}
        return {name: digest(instance.state_dict()) for name, instance in compared.items()}

    def _read_memory(self, step: int) -> Contents:
        assert self._memory is not None
        states = self._memory.load(step, self.objects)
        return states, {name: digest(states[name]) for name in self.objects}

    def _read(self, place: ReadPlace, step: int) -> Contents:
        """Return all states of a checkpoint and their digests, by name. Raises CheckpointError when it is damaged."""
        try:
            manifest = place.manifest()
            if manifest["format"] not in self.formats or manifest["step"] != step:
                raise CheckpointError(f"its manifest names step {manifest['step']} and format {manifest['format']}")
            states, digests = self._read_contents(place, manifest)
            if not isinstance(states[RUN]["state"], Mapping) or "generators" not in states[RUN]:
                raise CheckpointError(f"the files of {RUN!r} do not hold the state of a run")
            return states, digests
        except CheckpointError:
            raise
        except Exception as problem:  # unreadable in whatever way: torch and json raise many kinds
            raise CheckpointError(f"{type(problem).__name__}: {problem}".splitlines()[0]) from problem

    def _read_contents(self, place: ReadPlace, manifest: Mapping[str, Any]) -> Contents:
        read = self._read_whole if manifest["format"] == FORMAT else self._read_sharded
        return read(place, manifest)

    def _read_whole(self, place: ReadPlace, manifest: Mapping[str, Any]) -> Contents:
        names = [*self.objects, RUN]
        place.fetch(manifest["files"], [f"{name}.pt" for name in names])
        states = {name: read_state(place.folder / f"{name}.pt") for name in names}
        digests = {name: digest(states[name]) for name in self.objects}
        if any(digests[name] != manifest["objects"][name] for name in self.objects):
            raise CheckpointError("its contents are not those that its manifest names (digests)")
        if not isinstance(self.ranks, TorchRanks):
            return states, digests
        from lossguard.checkpoints.sharded.checkpoint import shard_states

        states |= shard_states({name: states[name] for name in self.objects}, self.objects)
        if self.ranks.rank > 0:  # one process has written it: further ones keep their own random numbers
            states[RUN] = {**states[RUN], "generators": None}
        return states, {name: digest(states[name]) for name in self.objects}

    def _read_sharded(self, place: ReadPlace, manifest: Mapping[str, Any]) -> Contents:
        from lossguard.checkpoints.sharded.checkpoint import OWN, read_rank_state, read_states, with_own

        files = manifest["files"]
        place.check_all(files, self.ranks)
        fetch = partial(place.fetch, files)
        states = read_states(place.folder, files, self.objects, fetch, self.ranks.rank)
        of_rank = read_rank_state(place.folder, manifest["ranks"], self.ranks.rank, fetch)
        states |= {name: with_own(states[name], own) for name, own in of_rank.pop(OWN, {}).items() if name in states}
        return states | {RUN: of_rank}, {name: digest(states[name]) for name in self.objects}


def _ranks_of(objects: Mapping[str, Stateful]) -> Ranks:
    """The ranks of this process. A model that is sharded over one rank is written as on several."""
    ranks = current_ranks()
    modules = (getattr(instance, "module", instance) for instance in objects.values())
    parameters = (each for module in modules if isinstance(module, nn.Module) for each in module.parameters())
    return TorchRanks() if ranks.size == 1 and any(map(is_sharded, parameters)) else ranks
