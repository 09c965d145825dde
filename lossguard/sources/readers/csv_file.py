"""CSV files: a header, and a row per line. Empty cells say nothing; lines of one step are one row.

A header that comes again (a run that was started again, and appends) is read again, a line of other length is left out.
"""

import csv
from functools import partial

from lossguard.sources.columns import Columns, Numbers, problem_of, step_of, time_of
from lossguard.sources.files.line_format import LineFormat
from lossguard.sources.readers import wandb_export
from lossguard.sources.rows import LineParser, Row
from lossguard.vocabulary.wording import plural

WHAT = "CSV files with a column of steps"
DELIMITERS = ",;\t"


class CsvParser(LineParser):
    reads_headers = True

    def __init__(self, columns: Columns | None = None) -> None:
        self._columns = columns or Columns()
        self._delimiter = ","
        self._header: list[str] = []
        self._step: int = -1
        self._time: int | None = None
        self._numbers = Numbers()

    def parse(self, line: bytes) -> Row | None:
        text, self.problem = line.decode("utf-8-sig", errors="replace").rstrip("\r"), ""
        if not self._header or self._is_header(text):
            self._read_header(text)
            return None
        cells = self._cells(text)
        if self._step < 0 or not text.strip():
            return None
        if len(cells) != len(self._header):
            self.problem = f"it has {plural(len(cells), 'cell')}, the header {len(self._header)}"
            return None
        step, others = step_of(cells[self._step]), (self._step, self._time)
        named = ((self._header[position], cell) for position, cell in enumerate(cells) if position not in others)
        values, self.problem = self._numbers.taken(named)
        if step is None or not values:
            self.problem = problem_of(dict(zip(self._header, cells, strict=True)), self._header[self._step])
            return None
        return Row(step, None if self._time is None else time_of(cells[self._time]), values)

    def shows(self, row: Row) -> bool:
        return not wandb_export.is_chart(self._header)

    def begin_anew(self) -> None:
        self._header = []

    def _is_header(self, text: str) -> bool:
        """Return True if the line names columns again: one of them is the step's, and it has no step itself."""
        if self._step < 0 or self._header[self._step] not in text:
            return False
        cells = self._cells(text)
        has_step = len(cells) > self._step and step_of(cells[self._step]) is not None
        return not has_step and self._columns.step_in(cells) is not None

    def _read_header(self, text: str) -> None:
        self._delimiter = max(DELIMITERS, key=text.count)
        self._header = [cell.strip() for cell in self._cells(text)]
        step, time = self._columns.step_in(self._header), self._columns.time_in(self._header)
        self._step = -1 if step is None else self._header.index(step)
        self._time = None if time is None else self._header.index(time)

    def _cells(self, text: str) -> list[str]:
        if '"' not in text:
            return text.split(self._delimiter)
        try:
            return next(csv.reader([text], delimiter=self._delimiter))
        except (csv.Error, StopIteration):
            return []


FORMAT = LineFormat("csv", (".csv", ".tsv"), lambda columns: [partial(CsvParser, columns)])
places_in, runs_in, follow = FORMAT.places_in, FORMAT.runs_in, FORMAT.follow
