"""Checkpoints at a URL. A checkpoint is there when its manifest is, which is written last and deleted first.

`remote.reading` shows what lies there, and besides `writer.json`: the process that writes. The last one to begin is the
only one.

An object store has no rename, so no file is written where another one lies, except for a manifest, which replaces the
earlier one at once. A rank writes and reads its files in a folder on its own disk (`staging`).
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from lossguard.checkpoints.files import DISCARDED, PARTIAL, encoded
from lossguard.checkpoints.local_folder import clean_up_unless_in_use, lock_on_all_ranks, locked
from lossguard.checkpoints.remote.files import RemoteFiles
from lossguard.checkpoints.remote.reading import (
    FILES,
    FOLDER,
    RemoteListing,
    RemoteReadFolder,
    RemoteWriter,
    examine,
    manifest_name,
    missing_file,
)
from lossguard.run.ranks import Ranks
from lossguard.spool.folders import make_folder
from lossguard.vocabulary.errors import CheckpointError, ConfigurationError, LogOnce
from lossguard.vocabulary.states import Tier

T = TypeVar("T")
DISCARD_SECONDS = 30.0
"""Seconds that a rollback waits for the deletion of discarded manifests; the rest is deleted later."""


class UploadStopped(CheckpointError):
    """An upload was given up, because a rollback does not wait for it."""


class RemoteFolder:
    """The place of `Checkpoints` at a URL. Every rank calls every method, unless it says otherwise.

    Rank 0 writes the manifests. Which steps there are is known without a request: from a listing at the beginning, and
    from what this process has done since.
    """

    tier = Tier.REMOTE
    all_ranks_see_it = False

    def __init__(self, files: RemoteFiles, ranks: Ranks, staging: Path | None) -> None:
        """Raises ValueError where the URL cannot be listed, and where `staging` cannot be written."""
        self._files, self._ranks = files, ranks
        self.path = files.url
        """Without user name and password."""
        self._log_once = LogOnce(quiet=ranks.rank > 0)
        self._writer = RemoteWriter(files)  # rank 0
        self._listing = RemoteListing()  # rank 0
        self._doubtful: set[int] = set()  # rank 0: whose manifest may still be there, and must not be
        self._steps: tuple[int, ...] = ()
        self._stop: Future[None] = Future()
        self._lock: Any = None
        self._where = ""  # of the checkpoint that is being written
        self._changing = threading.Lock()  # the manifests
        problem = None
        try:
            self._staging = _staging_folder(staging, files.url, ranks.rank)
            clean_up_unless_in_use(self._staging, 0)
            if ranks.rank == 0:
                self._listing = RemoteListing.of(files)
        except OSError as caught:
            problem = str(caught)
        if problems := [each for each in ranks.gather(problem) if each]:
            raise ValueError(f"checkpoints cannot be kept at {self}: {problems[0]}")
        self._sync_steps()

    def __str__(self) -> str:
        return self._files.url

    def lock(self, *, wait: float) -> None:
        """Become the only process that writes here, and delete what another one has left incomplete.

        A process on this machine is waited for. One elsewhere cannot be seen: its next save will fail.
        Raises ConfigurationError.
        """
        if self._lock is not None:
            return
        self._lock = self._ranks.run_on_all(partial(lock_on_all_ranks, self._staging, Ranks(), wait=wait)) or ()
        problem = None
        if self._ranks.rank == 0:
            try:
                self._begin_to_write()
            except OSError as caught:
                problem = str(caught)
        if (problem := self._ranks.broadcast(problem)) is not None:
            self.unlock()
            raise ConfigurationError(f"checkpoints cannot be saved: {problem}")
        self._sync_steps()

    def unlock(self) -> None:
        """Let a process on this machine write."""
        lock, self._lock = self._lock, None
        if lock:
            lock.release()

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return list(self._steps)

    def check(self, step: int) -> str | None:
        """See `Checkpoints.check`. Only rank 0 calls it."""
        name = manifest_name(step)
        try:
            _, problem = examine(self._files, name)
        except FileNotFoundError:
            return f"{self}/{name} is no longer there"
        except OSError as caught:
            return str(caught)
        return None if problem is None else f"{self}/{name} cannot be used: {problem}"

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """A folder on this rank's disk for its files of a new checkpoint."""
        with locked(self._staging, Ranks()):
            folder = self._staging / f"{PARTIAL}{step}-{os.getpid()}"
            self._where = self._ranks.broadcast(f"{FILES}/{step:09d}-{os.urandom(4).hex()}")
            try:
                self._ranks.run_on_all(self._begin, folder)
                yield folder
            except BaseException:
                self._listing.garbage.add(self._where)  # deleted after a save that works
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            self._delete_garbage()
            self._sync_steps()

    def _begin(self, folder: Path) -> None:
        folder.mkdir()
        if self._ranks.rank == 0:
            self._unless_stopped(self._writer.check if self._writer.has_begun else self._begin_to_write)

    def upload(self, folder: Path) -> None:
        """Upload this rank's files; the caller waits for all ranks. Raises OSError and UploadStopped."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self._unless_stopped(self._files.put, path, f"{self._where}/{path.relative_to(folder).as_posix()}")

    def _unless_stopped(self, action: Callable[..., T], *arguments: Any) -> T:
        """Run in a thread that nobody waits for after `stop_uploads`: a network may be silent for minutes."""
        done: Future[T] = Future()
        threading.Thread(target=_run, args=(done, action, *arguments), name="lossguard-upload", daemon=True).start()
        either: list[Future[Any]] = [done, self._stop]
        wait(either, return_when=FIRST_COMPLETED)
        if not done.done():
            raise UploadStopped("the upload was given up for a rollback")
        return done.result()

    def publish(self, folder: Path, step: int, manifest: dict[str, Any]) -> None:
        """Write the manifest, as the last thing, if all files are there with their size. Only rank 0 calls it."""
        content = {**manifest, FOLDER: self._where}
        sizes = self._unless_stopped(self._files.sizes, self._where)
        if (problem := missing_file(content, sizes)) is not None:
            raise OSError(f"{self}: {problem}")
        self._unless_stopped(self._writer.check)
        with self._changing:
            self._delete_doubtful()
            if (earlier := self._listing.folders.pop(step, None)) is not None:
                self._listing.garbage.add(earlier)
            self._doubtful.add(step)  # a request that fails may have been carried out
            try:
                self._files.write(manifest_name(step), encoded(content))
                self._doubtful.discard(step)
                self._listing.folders[step] = self._where
            finally:
                self._steps = tuple(sorted(self._listing.folders))

    def delete(self, steps: Sequence[int]) -> None:
        """Delete the checkpoints of these steps; a failure is reported, and they are deleted later. Only rank 0."""
        try:
            for step in steps:
                self._files.delete([manifest_name(step)])
                self._listing.garbage.add(self._listing.folders.pop(step))
        except OSError as problem:
            self._log_once.warn_once("delete", f"an old checkpoint could not be deleted: {problem}")

    def _sync_steps(self) -> None:
        """All ranks know the same steps: those that rank 0 knows."""
        self._steps = self._ranks.broadcast(tuple(sorted(self._listing.folders)))

    def discard(self, steps: Sequence[int], moved: Collection[int]) -> None:
        """These steps are no longer restorable; the manifests of some move in place of those that were moved before.

        Waits only for a while for a place that does not answer. Raises OSError.
        """
        done: Future[None] = Future()
        if self._ranks.rank == 0 and (steps or self._doubtful):
            self._doubtful |= set(steps)
            folders = {step: self._listing.folders.pop(step) for step in steps}
            arguments = (done, self._move, folders, moved)
            threading.Thread(target=_run, args=arguments, name="lossguard-discard", daemon=True).start()
            wait((done,), DISCARD_SECONDS)
        self._sync_steps()
        if done.done():
            done.result()

    def _move(self, folders: Mapping[int, str], moved: Collection[int]) -> None:
        with self._changing:
            kept = {step: folders[step] for step in moved}
            contents = {step: self._files.read(manifest_name(step)) for step in kept}
            self._delete_doubtful()
            self._listing.garbage |= set(folders.values()) - set(kept.values())
            if not folders:
                return
            self._files.delete(manifest_name(step, DISCARDED) for step in self._listing.discarded)
            self._listing.garbage |= set(self._listing.discarded.values())
            self._listing.discarded = {}
            for step, content in contents.items():
                self._files.write(manifest_name(step, DISCARDED), content)
            self._listing.discarded = kept

    @contextmanager
    def reading(self, step: int) -> Iterator[RemoteReadFolder]:
        """The checkpoint of `step`, until the objects have loaded it."""
        with ExitStack() as opened:

            def new_folder() -> Path:
                prefix = f"{PARTIAL}{step}-read-"
                return Path(opened.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=self._staging)))

            yield RemoteReadFolder(self._files, manifest_name(step), new_folder)

    def enable_uploads(self) -> None:
        """Undo `stop_uploads`."""
        self._stop = Future()

    def stop_uploads(self) -> None:
        """Give up the upload that is in progress, and the next one up to `enable_uploads`."""
        if not self._stop.done():
            self._stop.set_result(None)

    @property
    def is_stopped(self) -> bool:
        """True if `stop_uploads` was called since `enable_uploads`."""
        return self._stop.done()

    def _begin_to_write(self) -> None:
        self._writer.begin()
        self._delete_doubtful()
        self._listing = RemoteListing.of(self._files)  # once more: until now another process may have written
        self._delete_garbage()

    def _delete_doubtful(self) -> None:
        """No checkpoint of a discarded branch may be the newest one that a restart finds."""
        for step in sorted(self._doubtful):
            self._files.delete([manifest_name(step)])
            self._doubtful.discard(step)

    def _delete_garbage(self) -> None:
        """Delete files that no manifest names. What cannot be deleted now is deleted later."""
        if self._ranks.rank > 0:
            return
        try:
            for folder in sorted(self._listing.garbage):
                self._files.delete(self._files.sizes(folder))
                self._listing.garbage.discard(folder)
        except OSError as problem:
            self._log_once.warn_once("garbage", f"files of an incomplete or old checkpoint stay for now: {problem}")


def _staging_folder(given: Path | None, url: str, rank: int) -> Path:
    """A folder on the disk for the files of this rank. Raises OSError."""
    root = Path(tempfile.gettempdir()) / f"lossguard-{os.getuid()}" if given is None else given
    folder = root / sha256(url.encode()).hexdigest()[:12] / f"rank-{rank}"
    try:
        make_folder(folder)
        owner = root.stat().st_uid
    except OSError as problem:
        raise OSError(f"{root} cannot hold their files on the way (staging): {problem.strerror}") from problem
    if given is None and owner != os.getuid():
        raise OSError(f"{root} belongs to another user: give a folder of your own (staging=)")
    return folder


def _run(done: "Future[T]", action: Callable[..., T], *arguments: Any) -> None:
    try:
        done.set_result(action(*arguments))
    except BaseException as problem:
        done.set_exception(problem)
