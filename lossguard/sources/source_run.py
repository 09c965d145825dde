"""A run that another tool has stored, as `lossguard import` records it."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from itertools import chain
from typing import Any

from lossguard.sources.memory import MAX_BYTES
from lossguard.sources.rows import Row
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.source_facts import SourceFacts
from lossguard.vocabulary.states import RunState

MAX_SLUG = 80
"""Characters of a run's name in its id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRun:
    """Facts of a run that are known without reading its rows."""

    format: str
    """Name of the format, such as "tensorboard"."""
    identity: str
    """Identity of the run, equal whenever it is read, and unique: the id of the run follows from it.
    An id that the tool gave the run is best; else the path, with the machine's name."""
    name: str
    place: str
    """The place for people: a path, or a path and the run's id in it."""
    rows: Callable[[], Iterator[Row]]
    """All rows, oldest first, always in the same order; a step that goes back begins another segment. A later call may
    have more of them at the end. May raise BadSource."""
    project: str | None = None
    """None where the tool has none: `--project`, or the default."""
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    started_at: float | None = None
    """Unix seconds; None: the time of the first row."""
    ended_at: float | None = None
    """Unix seconds; None: the time of the last row."""
    state: RunState = RunState.FINISHED
    total_steps: int | None = None
    command: str | None = None
    facts: SourceFacts = field(default_factory=SourceFacts)
    """Facts about how the rows were made, as far as the format says."""
    git_commit: str | None = None
    host: str | None = None
    size: int | None = None
    """Number of rows, or about that, if it is known without reading them: for the progress bar."""
    part: str | None = None
    """The file, where each start of the run writes one of its own; None where the place holds all of the run."""

    @property
    def run_id(self) -> str:
        """A valid id that begins with the name, for people, and follows from the identity."""
        return run_id_of(self.name, f"{self.format}\n{self.identity}")


def whole(found: Sequence[SourceRun]) -> SourceRun:
    """Join what was found of one run: the parts that its starts have written follow each other by their beginnings.

    Of places that hold all of it, the last one counts.
    """
    files = {run.part: run for run in found}  # a part that was found twice is one
    parts = sorted(files.values(), key=lambda run: run.started_at or 0.0)
    newest = parts[-1]
    if newest.part is None or len(parts) == 1:
        return found[-1]
    return replace(
        newest,
        place=f"{newest.place}, begun in {parts[0].part}",
        rows=lambda: chain.from_iterable(run.rows() for run in parts),
        started_at=parts[0].started_at,
        size=sum(run.size or 0 for run in parts),
    )


def run_id_of(name: str, identity: str) -> str:
    """A valid id that begins with the name, for people, and follows from the identity."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:MAX_SLUG]
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{slug}-{digest}" if slug else digest


MAX_ROWS = 10_000_000
"""Maximum rows of a stored run: a packed file may stand for any number of them."""


@contextmanager
def parsing(place: object, *, is_stored: bool = False) -> Iterator[None]:
    """Raise BadSource for whatever a reader raises: it reads the bytes of others, which need not be what they say.

    OSError is left unless `is_stored`: whoever follows a source tries again.
    """
    try:
        yield
    except (BadSource, ConfigurationError):
        raise
    except OSError as problem:
        if not is_stored:
            raise
        raise BadSource(f"{place} cannot be read ({problem.strerror or problem})") from None
    except MemoryError:
        raise BadSource(f"{place} takes more than {MAX_BYTES >> 20} MiB of memory: import a part of it") from None
    except Exception as problem:  # of any library that parses
        words = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise BadSource(f"{place} cannot be read: it is damaged, or not of this format ({words:.200})") from None


def checked(found: Iterator[SourceRun], path: object) -> Iterator[SourceRun]:
    """Yield the runs that a reader finds; they and their rows raise nothing but BadSource."""
    with parsing(path, is_stored=True):
        for run in found:
            if not all(isinstance(text, str) for text in (run.name, run.identity)):
                raise BadSource(f"{run.place} has no name: it is damaged, or not of this format")
            yield replace(run, rows=partial(_checked_rows, run))


def _checked_rows(run: SourceRun) -> Iterator[Row]:
    with parsing(run.place, is_stored=True):
        for num_rows, row in enumerate(run.rows(), start=1):
            if num_rows > MAX_ROWS:
                raise BadSource(f"{run.place} has more than {MAX_ROWS:,} rows: import a part of it")
            yield row


def needed(module: str, package: str, what: str) -> Any:
    """Import a module that a format is read with; `what`: the sources, for people. Raises BadSource without it."""
    try:
        return import_module(module)
    except ImportError as problem:
        raise BadSource(f"{what} need the package {package} ({problem}): pip install {package}") from None


class BadSource(ValueError):
    """A source cannot be read as a run: one sentence that says what, where, and how to mend it."""
