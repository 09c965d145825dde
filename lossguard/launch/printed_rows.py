"""From the bytes that a command prints to entries of its journal."""

import time
from collections.abc import Sequence

from lossguard.launch.hooks.journal import TEXT, Journal
from lossguard.sources.readers.printed_lines import KEYWORDS, MAX_LINE, PATTERNS, LogParser, own_pattern
from lossguard.sources.rows import Row


class PrintedRows:
    """Reads the outputs of one command; the first pattern that fits a line with a loss is the one of all lines."""

    def __init__(self, journal: str, pattern: str | None) -> None:
        """`pattern`: the user's own; None: the patterns of known trainers are tried."""
        self._journal = Journal(journal, is_shared=True)
        self._words: Sequence[bytes] = KEYWORDS if pattern is None else (b"",)
        self._candidates = [LogParser(each) for each in (PATTERNS if pattern is None else [own_pattern(pattern)])]
        self._parser: LogParser | None = None
        self._begun: dict[int, bytearray | None] = {}  # the last line of each output; None: too long to be read

    def take(self, output: int, data: bytes | None) -> None:
        """Read what an output has printed; None: bytes that are not known."""
        if data is None:
            self._begun[output] = None
            return
        begun = self._begun.setdefault(output, bytearray())
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if end:
            lines = data[:end].replace(b"\r", b"\n")
            begins = lines.index(b"\n") + 1 if begun is None else 0  # the rest of a line that is too long
            self._read(bytes(begun or b"") + lines[begins:])
            begun = self._begun[output] = bytearray()
        if begun is not None:
            begun += data[end:]
            if len(begun) > MAX_LINE:
                self._begun[output] = None

    def close(self) -> None:
        self._journal.close()

    def _read(self, lines: bytes) -> None:
        if self._fits(lines):
            for line in lines.split(b"\n"):
                if line and self._fits(line) and (row := self._parse(line)) is not None:
                    entry = {"step": row.step, "time": time.time(), "values": row.values, "tracker": TEXT}
                    self._journal.write(entry)

    def _fits(self, text: bytes) -> bool:
        """Return False if no pattern can fit; cheaper than the patterns."""
        return any(word in text for word in self._words)

    def _parse(self, line: bytes) -> Row | None:
        if self._parser is not None:
            return self._parser.parse(line)
        for parser in self._candidates:
            if (row := parser.parse(line)) is not None and parser.shows(row):
                self._parser = parser
                described = {"config": parser.pattern.config, "facts": parser.facts.to_details()}
                self._journal.write({"tracker": TEXT, "what": parser.pattern.what, **described})
                return row
        return None
