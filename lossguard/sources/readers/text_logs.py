"""Logs that trainers print into files, with lines that a pattern of `printed_lines` describes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lossguard.sources.joining import Joiner
from lossguard.sources.readers.growing_file import rotated_files
from lossguard.sources.readers.line_format import LineFollower, beginning, files_in, follower, stored
from lossguard.sources.readers.printed_lines import PATTERNS, LogParser, Pattern
from lossguard.sources.source_run import SourceRun

WHAT = f"logs of {', '.join(str(each.config['trainer']) for each in PATTERNS)}, or of any other trainer with --pattern"
SUFFIXES = (".log", ".txt", ".out", ".err")
MAX_BANNER = 4 << 20
"""Bytes of a log, in which its first row must be: a launcher may print its configuration from each rank."""


def pattern_of(path: Path, own: Pattern | None) -> tuple[Pattern, bytes] | None:
    """The pattern that fits a file, and the first line that it fits; None if there is none. `own`: try this one."""
    lines = beginning(path, MAX_BANNER)
    for pattern in PATTERNS if own is None else (own,):
        parser = LogParser(pattern)
        for line in lines:
            if (row := parser.parse(line)) is not None and pattern.shows(row):
                return pattern, line
    return None


def places_in(path: Path, own: Pattern | None = None) -> Iterator[Path]:
    """The logs at or below `path`."""
    return (file for file in files_in(path, SUFFIXES) if _watched_pattern(file, own) is not None)


def _watched_pattern(path: Path, own: Pattern | None) -> Pattern | None:
    """Return the pattern of the file or, while it has no row since it was rotated, of the files it was renamed to."""
    found = (pattern_of(file, own) for file in (path, *rotated_files(path)))
    return next((each[0] for each in found if each is not None), None)


def runs_in(path: Path, own: Pattern | None = None) -> Iterator[SourceRun]:
    for file in files_in(path, SUFFIXES):
        if (found := pattern_of(file, own)) is not None:
            pattern, line = found
            yield stored(file, "log", line, partial(LogParser, pattern), config=pattern.config)


def follow(path: Path, joiner: Joiner, own: Pattern | None = None) -> LineFollower:
    """The rows of a log while it grows. It must have a first row: `places_in` names it then."""
    pattern = _watched_pattern(path, own)
    assert pattern is not None
    return follower(path, LogParser(pattern), joiner)
