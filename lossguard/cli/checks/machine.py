"""Whether this machine can record a run: folder, disk, spools that wait, limits, packages."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from lossguard.cli.checks.check import Check, ok, problem, warning
from lossguard.guard.limits_in_force import KILL_FILE, LIMITS_FILE, VARIABLE
from lossguard.run.settings import Settings
from lossguard.spool.spool_reader import acknowledged, is_delivered
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.orders import read_key
from lossguard.vocabulary.wording import size

LITTLE, TOO_LITTLE = 5 << 30, 100 << 20
"""Bytes left on the disk: for a warning, and for a problem."""


def checks(settings: Settings, environment: Mapping[str, str]) -> list[Check]:
    """Yield checks of what a run on this machine needs, besides a collector."""
    found = [_folder(settings.directory), _disk(settings.directory), *_spools(settings.directory)]
    return [*found, *_limits(settings.directory, environment), *_order_key(environment), _torch()]


def _nearest(directory: Path) -> Path:
    """The folder itself, or the nearest one above that exists."""
    resolved = directory.absolute()
    return next(each for each in (resolved, *resolved.parents) if os.path.exists(each))  # Path.exists may raise


def _below(directory: Path, pattern: str) -> Iterable[Path]:
    """The files of this name in a folder that this user may look into."""
    return directory.rglob(pattern) if os.path.isdir(directory) else ()


def _folder(directory: Path) -> Check:
    nearest = _nearest(directory)
    mend = "choose another folder with LOSSGUARD_DIR, or let this user write there"
    if not nearest.is_dir():
        return problem("folder", f"{nearest} is not a folder", mend)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return problem("folder", f"this user cannot write in {nearest}", mend)
    verb = "written" if nearest == directory.absolute() else "made"
    return ok("folder", f"{directory} can be {verb}")


def _disk(directory: Path) -> Check:
    left = shutil.disk_usage(_nearest(directory)).free
    sentence, mend = f"{size(left)} are left there", "make room, or choose another disk with LOSSGUARD_DIR"
    if left < TOO_LITTLE:
        return problem("disk", sentence, mend)
    return warning("disk", sentence, mend) if left < LITTLE else ok("disk", sentence)


def _spools(directory: Path) -> list[Check]:
    waiting = [path for path in _below(directory, "*.spool") if not is_delivered(path)]
    if not waiting:
        return [ok("spools", "everything that was recorded here is delivered")]
    runs = sorted({path.parent.name for path in waiting})
    num_bytes = sum(map(_waiting_bytes, waiting))
    named = f"{len(runs)} runs" if len(runs) > 1 else f"the run {runs[0]}"
    sentence = f"{size(num_bytes)} of {named} wait for delivery"
    return [warning("spools", sentence, f"if nothing trains here now: lossguard sync {directory}")]


def _waiting_bytes(spool: Path) -> int:
    try:
        return max(0, spool.stat().st_size - acknowledged(spool))
    except OSError:  # delivered and archived meanwhile
        return 0


def _limits(directory: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    if given := environment.get(VARIABLE):
        yield _parsed(VARIABLE, lambda: given)
    for path in _below(directory, LIMITS_FILE):
        if path.is_file():
            yield _parsed(str(path), lambda path=path: path.read_text(encoding="utf-8", errors="replace"))  # type: ignore[misc]
    for path in _below(directory, KILL_FILE):
        mend = f"delete {path} once it is to carry them out again"
        yield warning("orders", f"the run {path.parent.name} carries out no orders", mend)


def _parsed(source: str, read: Callable[[], str]) -> Check:
    mend = "correct it: until then no order is carried out"
    try:
        limits = Limits.parse(read(), source)
    except ConfigurationError as error:
        return problem("limits", str(error), mend)
    except OSError as error:
        return problem("limits", f"{source} cannot be read ({error.strerror})", mend)
    return ok("limits", f"{source}: {limits.to_text() or 'no limit'}")


def _order_key(environment: Mapping[str, str]) -> list[Check]:
    try:
        key = read_key(environment)
    except ConfigurationError as error:
        return [problem("order key", str(error), "correct it, or unset it")]
    return [] if key is None else [ok("order key", "orders must be signed with the key that is set")]


def _torch() -> Check:
    try:
        return ok("torch", f"PyTorch {metadata.version('torch')}")
    except metadata.PackageNotFoundError:
        return warning("torch", "PyTorch is not installed here", "a run can be watched without it, not rolled back")
