"""Logs that trainers print into files, with lines that a pattern of `printed_lines` describes."""

from collections.abc import Callable, Sequence
from functools import partial

from lossguard.sources.files.growing_file import rotated_files
from lossguard.sources.files.line_format import LineFormat
from lossguard.sources.readers.printed_lines import PATTERNS, LogParser, Pattern
from lossguard.sources.rows import LineParser

WHAT = f"logs of {', '.join(str(each.config['trainer']) for each in PATTERNS)}, or of any other trainer with --pattern"
MAX_BANNER = 4 << 20
"""Bytes of a log, in which its first row must be: a launcher may print its configuration from each rank."""


def _makers(own: object) -> Sequence[Callable[[], LineParser]]:
    return [partial(LogParser, each) for each in ((own,) if isinstance(own, Pattern) else PATTERNS)]


FORMAT = LineFormat("log", (".log", ".txt", ".out", ".err"), _makers, MAX_BANNER, rotated_files)
places_in, runs_in, follow = FORMAT.places_in, FORMAT.runs_in, FORMAT.follow
