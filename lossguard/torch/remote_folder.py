"""Checkpoints at a URL. A checkpoint is there when its manifest is, which is written last and deleted first.

<url>/step-000000050/manifest.json     sizes and SHA-256 of the files, and the folder in which they lie
      files/000000050-3f2a9c1b/...     the files; each attempt to save has a folder of its own
      discarded/step-...               manifests of some that the last rollback discarded
      writer.json                      the process that writes here; the last one to begin is the only one

An object store has no rename, so no file is written where another one lies, except for a manifest, which replaces the
earlier one at once. A rank writes and reads its files in a folder on its own disk (`staging`).
"""

import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from lossguard.errors import CheckpointError, ConfigurationError
from lossguard.log_once import LogOnce, logger
from lossguard.private_files import make_folder
from lossguard.ranks import Ranks
from lossguard.remote_files import RemoteFiles
from lossguard.states import Tier
from lossguard.torch.directory_lock import clean_up_unless_in_use, lock_on_all_ranks, locked
from lossguard.torch.files import PARTIAL, check_files, check_name
from lossguard.torch.local_folder import DISCARDED
from lossguard.torch.manifest import MANIFEST, decoded, encoded, folder_name
from lossguard.writer import this_process

FILES = "files"
WRITER = "writer.json"
FOLDER = "folder"
"""The key of a manifest that says where the files are."""
_MANIFEST = re.compile(rf"(?:({DISCARDED})/)?step-(\d{{9,}})/{MANIFEST}")
DISCARD_SECONDS = 30.0
"""How long a rollback waits until the manifests of what it discards are deleted; the rest follows later."""
NUM_REQUESTS = 8
"""At once, where many small files are read."""


class UploadStopped(CheckpointError):
    """An upload was given up, because a rollback does not wait for it."""


class RemoteReadFolder:
    """A checkpoint that is being read. What is needed of it is downloaded into `folder`, and compared."""

    def __init__(self, files: RemoteFiles, step: int, new_folder: Callable[[], Path]) -> None:
        self._files, self._step, self._new_folder = files, step, new_folder
        self._where = ""

    @cached_property
    def folder(self) -> Path:
        """Created at its first use: a restore from memory does not need the disk."""
        return self._new_folder()

    def manifest(self) -> dict[str, Any]:
        """Raises CheckpointError if it is damaged, ValueError if it is not JSON, and OSError."""
        content = decoded(self._files.read(_manifest_name(self._step)))
        self._where = check_name(content.pop(FOLDER))
        return content

    def need(self, files: Mapping[str, Any], names: Collection[str]) -> None:
        """Have these files in `folder`. Raises CheckpointError if one is not intact, and OSError."""
        for name in names:
            place = self.folder / check_name(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            self._files.get(f"{self._where}/{name}", place)
        check_files(self.folder, files, names)

    def check_all(self, files: Mapping[str, Any], ranks: Ranks) -> None:
        """Each rank compares what it downloads."""

    need_more = need


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
        self._log_once = LogOnce(quiet=ranks.rank > 0)
        self._id = os.urandom(8).hex()
        self._is_writer = False  # rank 0: `writer.json` was written
        self._folders: dict[int, str] = {}  # rank 0: step -> where its files are
        self._discarded: dict[int, str] = {}  # rank 0
        self._doubtful: set[int] = set()  # rank 0: whose manifest may still be there, and must not be
        self._garbage: set[str] = set()  # rank 0: folders that no manifest names
        self._steps: tuple[int, ...] = ()
        self._stop: Future[None] = Future()
        self._lock: Any = None
        self._where = ""  # of the checkpoint that is being written
        self._staging = _staging_folder(staging, files.url, ranks.rank)
        problem = None
        try:
            clean_up_unless_in_use(self._staging, 0)
            if ranks.rank == 0:
                self._look()
        except OSError as caught:
            problem = str(caught)
        if (problem := ranks.broadcast(problem)) is not None:
            raise ValueError(f"checkpoints cannot be kept at {self}: {problem}")
        self.agree()

    def __str__(self) -> str:
        return self._files.url

    def folder(self, step: int) -> Path:
        """Only a folder on a disk has one."""
        raise AssertionError(f"{self} has no folder of step {step}")

    @property
    def path(self) -> str:
        """The URL."""
        return self._files.url

    def _look(self) -> None:
        """Learn which checkpoints are there, whole."""
        self._folders, self._discarded = {}, {}
        sizes = self._files.sizes()
        garbage = {"/".join(name.split("/")[:2]) for name in sizes if name.startswith(f"{FILES}/")}
        found = {name: match for name in sizes if (match := _MANIFEST.fullmatch(name))}
        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            for (name, match), content in zip(found.items(), pool.map(self._manifest, found), strict=True):
                problem = content if isinstance(content, str) else _missing(content, sizes)
                if problem is not None:
                    logger.warning("%s/%s is not a whole checkpoint: %s", self, name, problem)
                    garbage = {each for each in garbage if not each.startswith(f"{FILES}/{match[2]}-")}  # for a person
                    continue
                assert isinstance(content, dict)
                (self._discarded if match[1] else self._folders)[int(match[2])] = content[FOLDER]
        self._garbage = garbage.difference(self._folders.values(), self._discarded.values())

    def _manifest(self, name: str) -> dict[str, Any] | str:
        """A manifest, or what is wrong with it."""
        try:
            content = decoded(self._files.read(name))
            check_name(content[FOLDER])
            return content
        except (CheckpointError, ValueError, LookupError, TypeError) as problem:
            return str(problem)

    def lock(self, *, wait: float) -> None:
        """Become the only process that writes here, and delete what another one has left incomplete.

        A process on this machine is waited for. One elsewhere cannot be seen: its next save will fail.
        Raises ConfigurationError.
        """
        if self._lock is None:
            self._lock = self._ranks.run_on_all(partial(lock_on_all_ranks, self._staging, Ranks(), wait=wait)) or ()
        problem = None
        if self._ranks.rank == 0 and not self._is_writer:
            try:
                self._begin_to_write()
            except OSError as caught:
                problem = str(caught)
        if (problem := self._ranks.broadcast(problem)) is not None:
            self.unlock()
            raise ConfigurationError(f"checkpoints cannot be saved: {problem}")
        self.agree()

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
        name = _manifest_name(step)
        try:
            content = self._manifest(name)
            problem = content if isinstance(content, str) else _missing(content, self._files.sizes(content[FOLDER]))
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
                self._garbage.add(self._where)
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                self._delete_garbage()

    def _begin(self, folder: Path) -> None:
        folder.mkdir()
        if self._ranks.rank == 0 and not self._is_writer:
            self._begin_to_write()

    def upload(self, folder: Path) -> None:
        """Upload this rank's files; the caller waits for all ranks. Raises OSError and UploadStopped."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self._put(path, f"{self._where}/{path.relative_to(folder).as_posix()}")

    def _put(self, path: Path, name: str) -> None:
        """In a thread of its own, which nobody waits for after `stop`: a network may be silent for minutes."""
        put: Future[None] = Future()
        threading.Thread(
            target=_run, args=(put, self._files.put, path, name), name="lossguard-upload", daemon=True
        ).start()
        wait((put, self._stop), return_when=FIRST_COMPLETED)
        if not put.done():
            raise UploadStopped(f"the upload of {name} was given up")
        put.result()

    def publish(self, folder: Path, step: int, manifest: dict[str, Any]) -> None:
        """Write the manifest, as the last thing, if all files are there with their size."""
        if self._ranks.rank > 0:
            return
        content = {**manifest, FOLDER: self._where}
        if (problem := _missing(content, self._files.sizes(self._where))) is not None:
            raise OSError(f"{self}: {problem}")
        self._check_writer()
        self._delete_doubtful()
        self._doubtful.add(step)  # a request that fails may have been carried out
        self._files.write(_manifest_name(step), encoded(content))
        self._doubtful.discard(step)
        if (earlier := self._folders.get(step)) is not None:
            self._garbage.add(earlier)
        self._folders[step] = self._where
        self._steps = tuple(sorted(self._folders))

    def delete(self, steps: Sequence[int]) -> None:
        """Delete the checkpoints of these steps. A failure is reported, and the files are deleted later."""
        if self._ranks.rank > 0:
            return
        try:
            for step in steps:
                self._files.delete([_manifest_name(step)])
                self._garbage.add(self._folders.pop(step))
        except OSError as problem:
            self._log_once.warn_once("delete", f"an old checkpoint could not be deleted: {problem}")

    def agree(self) -> None:
        """All ranks know the same steps: those that rank 0 knows."""
        self._steps = self._ranks.broadcast(tuple(sorted(self._folders)))

    def discard(self, steps: Sequence[int], moved: Collection[int]) -> None:
        """These steps are no longer restorable; the manifests of some move in place of those that were moved before.

        Waits only for a while for a place that does not answer. Raises OSError.
        """
        done: Future[None] = Future()
        if self._ranks.rank == 0 and (steps or self._doubtful):
            self._doubtful |= set(steps)
            folders = {step: self._folders.pop(step) for step in steps}
            arguments = (done, self._move, folders, moved)
            threading.Thread(target=_run, args=arguments, name="lossguard-discard", daemon=True).start()
            wait((done,), DISCARD_SECONDS)
        self.agree()
        if done.done():
            done.result()

    def _move(self, folders: Mapping[int, str], moved: Collection[int]) -> None:
        kept = {step: folders[step] for step in moved}
        contents = {step: self._files.read(_manifest_name(step)) for step in kept}
        self._delete_doubtful()
        self._garbage |= set(folders.values()) - set(kept.values())
        if not folders:
            return
        self._files.delete(_manifest_name(step, DISCARDED) for step in self._discarded)
        self._garbage |= set(self._discarded.values())
        self._discarded = {}
        for step, content in contents.items():
            self._files.write(_manifest_name(step, DISCARDED), content)
        self._discarded = kept

    @contextmanager
    def reading(self, step: int) -> Iterator[RemoteReadFolder]:
        """The checkpoint of `step`, until the objects have loaded it."""
        with ExitStack() as opened:

            def new_folder() -> Path:
                prefix = f"{PARTIAL}{step}-read-"
                return Path(opened.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=self._staging)))

            yield RemoteReadFolder(self._files, step, new_folder)

    def allow(self) -> None:
        """Undo `stop`."""
        self._stop = Future()

    def stop(self) -> None:
        """Give up the upload that is in progress, and the next one up to `allow`."""
        if not self._stop.done():
            self._stop.set_result(None)

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called since `allow`."""
        return self._stop.done()

    def _begin_to_write(self) -> None:
        since = {"id": self._id, "process": this_process(), "since": time.time()}
        self._files.write(WRITER, json.dumps(since).encode())
        self._look()  # once more: until now another process may have written
        self._is_writer = True
        self._delete_garbage()

    def _check_writer(self) -> None:
        """Raise CheckpointError if another process has begun to write here."""
        written = json.loads(self._files.read(WRITER))
        if written.get("id") != self._id:
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(written["since"]))
            raise CheckpointError(
                f"process {written['process']} saves its checkpoints at {self} since {since}, so this one no longer "
                "does: stop one of them, or keep the checkpoints of each at a URL of its own"
            )

    def _delete_doubtful(self) -> None:
        """No checkpoint of a discarded branch may be the newest one that a restart finds."""
        for step in sorted(self._doubtful):
            self._files.delete([_manifest_name(step)])
            self._doubtful.discard(step)

    def _delete_garbage(self) -> None:
        """Delete files that no manifest names. What cannot be deleted now is deleted later."""
        if self._ranks.rank > 0:
            return
        try:
            for folder in sorted(self._garbage):
                self._files.delete(self._files.sizes(folder))
                self._garbage.discard(folder)
        except OSError as problem:
            self._log_once.warn_once("garbage", f"files of an incomplete or old checkpoint stay for now: {problem}")


def _manifest_name(step: int, folder: str = "") -> str:
    return f"{folder}/{folder_name(step)}/{MANIFEST}".lstrip("/")


def _missing(manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> str | None:
    """Why the files of a manifest are not all there; None if they are."""
    for name, written in manifest["files"].items():
        where = f"{manifest[FOLDER]}/{name}"
        if sizes.get(where) != written["bytes"]:
            return f"{where} is missing or has another size than it was written with"
    return None


def _staging_folder(given: Path | None, url: str, rank: int) -> Path:
    """A folder on the disk for the files of this rank. Raises ValueError."""
    root = Path(tempfile.gettempdir()) / f"lossguard-{os.getuid()}" if given is None else given
    folder = root / sha256(url.encode()).hexdigest()[:12] / f"rank-{rank}"
    try:
        make_folder(folder)
        owner = root.stat().st_uid
    except OSError as problem:
        raise ValueError(f"{root} cannot hold the files of checkpoints (staging): {problem.strerror}") from problem
    if given is None and owner != os.getuid():
        raise ValueError(f"{root} belongs to another user: give a folder of your own (staging=)")
    return folder


def _run(done: "Future[None]", action: Any, *arguments: Any) -> None:
    try:
        action(*arguments)
    except BaseException as problem:
        done.set_exception(problem)
    else:
        done.set_result(None)
