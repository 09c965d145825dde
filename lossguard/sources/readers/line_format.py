"""Formats of one row per line: find such files, follow them while they grow, and import them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lossguard.sources.joining import Joiner, PlacedRow
from lossguard.sources.names import NameMap
from lossguard.sources.readers.growing_file import MAX_LINE, FileLine, GrowingFile
from lossguard.sources.readers.source_files import files_below, opened, read_beginning
from lossguard.sources.rows import Row
from lossguard.sources.source_run import BadSource, SourceRun
from lossguard.spool.writer import this_process
from lossguard.vocabulary.errors import logger
from lossguard.vocabulary.source_facts import SourceFacts
from lossguard.vocabulary.wording import plural

SNIFF_BYTES = 1 << 16
"""Bytes at the beginning of a table in which its first row must be."""


class LineParser(Protocol):
    """Reads the lines of one file, in order."""

    facts: SourceFacts
    """Facts about how the rows are made, as far as the format says."""
    ends: bytes
    """The bytes that end a line."""
    problem: str
    """Reason why the last line is left out, or a value of it, in a few words; empty where nothing is."""

    def parse(self, line: bytes) -> Row | None:
        """The values of a line; None for one that has none."""

    def begin_anew(self) -> None:
        """The next line is the first of a file."""

    def is_whole(self, line: bytes) -> bool:
        """Return True if a last line without its end can be taken as it is, when nothing more comes."""


@dataclass(slots=True)
class LineFollower:
    """The rows of a file that grows."""

    file: GrowingFile
    parser: LineParser
    joiner: Joiner
    _has_begun: bool = field(default=False)
    _num_left_out: int = field(default=0)  # lines of the file, or values of them
    _first_left_out: str = field(default="")

    @property
    def facts(self) -> SourceFacts:
        return self.parser.facts

    def poll(self, *, final: bool = False) -> Iterator[PlacedRow]:
        """The rows that are new; `final`: nothing more comes. Raises OSError, and BadSource where two runs write it."""
        now = time.monotonic()
        for line in self.file.read():
            if line.is_first and self._has_begun:
                self.parser.begin_anew()
                self._num_left_out = 0
                yield from self.joiner.begin_anew()
            self._has_begun = True
            if (part := self.parser.parse(line.text)) is not None:
                yield from self.joiner.add(part, line, now)
            if problem := self.parser.problem:
                self._leave_out(line, problem)
        if final and (rest := self.file.unfinished()) is not None:
            part = self.parser.parse(rest.text)
            is_cut = part is not None and not self.parser.is_whole(rest.text)
            if part is not None and not is_cut:
                yield from self.joiner.add(part, rest, now)
            if problem := "it has no line end" if is_cut else self.parser.problem:
                self._leave_out(rest, problem)
        yield from self.joiner.flush(now, final=final)

    def warn_of_left_out(self) -> None:
        """Say how many lines of the file are no rows, or lack a value, although they should not, if there are any."""
        if self._num_left_out:
            number = plural(self._num_left_out, "line was", "lines were")
            logger.warning(
                f"{self.file.path}: {number} left out, whole or in part; the first is {self._first_left_out}"
            )

    def close(self) -> None:
        self.warn_of_left_out()
        self.file.close()

    def _leave_out(self, line: FileLine, problem: str) -> None:
        if not self._num_left_out:
            self._first_left_out = f"line {self.file.num_lines_before(line.offset) + 1:,}: {problem}"
        self._num_left_out += 1


def follower(path: Path, parser: LineParser, joiner: Joiner) -> LineFollower:
    """Goes on at the position of the joiner's recorded row, if the file still has that line, else at its beginning."""
    recorded = joiner.recorded
    file = GrowingFile(path, None if recorded is None else recorded.position, ends=parser.ends)
    has_begun = recorded is not None
    if recorded is not None:
        _read_header(path, parser)
        if not file.is_resumed:
            joiner.begin_anew()
    return LineFollower(file, parser, joiner, has_begun)


def _read_header(path: Path, parser: LineParser) -> None:
    try:
        with opened(path) as file:
            parser.parse(file.readline(MAX_LINE).rstrip(b"\r\n"))
    except OSError:
        return


def has_magic(path: Path, magic: bytes) -> bool:
    """Return True if a file begins with these bytes."""
    try:
        return read_beginning(path, len(magic)) == magic
    except OSError:
        return False


def files_in(path: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The file itself, or the files below a folder that have one of these suffixes."""
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in files_below(path) if file.suffix in suffixes and not _is_hidden(file, path))


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def beginning(path: Path, size: int = SNIFF_BYTES) -> list[bytes]:
    """The lines among the first `size` bytes; none of a file that is not text."""
    try:
        data = read_beginning(path, size)
    except OSError:
        return []
    if b"\0" in data:
        return []
    lines = data.replace(b"\r", b"\n").split(b"\n")
    return [line for line in lines if line]


def identity_of(path: Path, first_line: bytes) -> str:
    """Return the identity of a file without an id: machine, path and first row. A new run in its place differs."""
    host = this_process().partition("@")[2]
    return f"{host}:{path.resolve()}:{first_line.decode(errors='replace')}"


def stored(
    path: Path, format: str, first_line: bytes, make_parser: Callable[[], LineParser], **described: Any
) -> SourceRun:
    """A file of lines as a stored run, named by its file, or by its folder where all files have that name."""

    def rows() -> Iterator[Row]:
        parser = make_parser()
        following = LineFollower(GrowingFile(path, ends=parser.ends), parser, Joiner(NameMap(), lambda place: None))
        try:
            for placed in following.poll(final=True):
                yield placed.row
            following.warn_of_left_out()
        except BadSource as problem:
            raise BadSource(f"{path}: {problem}") from None
        except OSError as problem:
            raise BadSource(f"{path} cannot be read ({problem.strerror})") from None
        finally:
            following.file.close()

    return SourceRun(
        format=format,
        identity=identity_of(path, first_line),
        name=name_of(path),
        place=str(path),
        rows=rows,
        ended_at=path.stat().st_mtime,
        size=about_rows(path, make_parser()),
        facts=make_parser().facts,
        **described,
    )


def about_rows(path: Path, parser: LineParser) -> int:
    """About how many rows a file has, by those at its beginning."""
    lines = beginning(path)
    num_bytes, num_rows = sum(len(line) + 1 for line in lines), sum(parser.parse(line) is not None for line in lines)
    return round(num_rows * path.stat().st_size / max(1, num_bytes))


COMMON_NAMES = frozenset(
    (
        "metrics",
        "log",
        "logs",
        "train",
        "training",
        "train_log",
        "history",
        "stdout",
        "output",
        "main",
        "results",
        "out",
    )
)


def name_of(path: Path) -> str:
    """The name of a file without its suffix; with its folder's before it where the file's own says nothing."""
    return f"{path.resolve().parent.name}/{path.stem}" if path.stem.lower() in COMMON_NAMES else path.stem
