"""Reads results of the trainer's lab (`python -m trainer lab .. --json`): docs/measurements/, or an uploaded file.

One JSON object per line. The fields say which sweep a line belongs to, so that a file may hold several of them.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from dashboard.data.trainer.lab_results import (
    AbilityRun,
    CalibrationRun,
    ExposureRun,
    Gradients,
    LabResults,
    Run,
    ScalingRun,
    SwitchRun,
    TemperatureRun,
    UnstableRun,
)
from db.cli.command_engine import as_typed_here
from lossguard.vocabulary.protocol import decode_number

INSTALLED = Path(__file__).parents[1] / "measurements"
"""Measurements of the wheel, which has no docs/."""
MEASUREMENTS = INSTALLED if INSTALLED.is_dir() else Path(__file__).parents[3] / "docs" / "measurements"
MAX_LINES, MAX_LINE_BYTES = 1000, 2**20
"""Limits of an uploaded file. The lab's largest sweep has 65 lines; ways to train take a few kB per seed."""
MAX_RUNS = 1000
MAX_LETTERS = 100
"""Maximum letters of a name."""
MAX_QUOTED = 40
"""Letters of a value that an error quotes."""
COMMAND = as_typed_here("python -m trainer lab --json")


class LabResultsError(ValueError):
    """Results that cannot be read; the message is one sentence, with file and line."""


def shipped(folder: Path = MEASUREMENTS) -> LabResults | None:
    """The results behind docs/lesson.md; None where they are not installed. Raises LabResultsError."""
    files = [folder / f"{name}.jsonl" for name in SHIPPED]
    content = b"\n".join(file.read_bytes() for file in files if file.exists())
    return parse("docs/measurements", content) if content else None


def parse(name: str, content: bytes) -> LabResults:
    """The results in the JSONL file `name`. Raises LabResultsError. The lines are read one at a time."""
    results = LabResults(key=hashlib.sha256(content).hexdigest())
    seen: dict[Hashable, int] = {}
    for number, line in enumerate(io.BytesIO(content), 1):
        place = f"{_shortened(name)}, line {number}"
        if number > MAX_LINES:
            raise LabResultsError(f"{place}: the page shows at most {MAX_LINES:,} lines; upload a part of the file.")
        if not line.strip():
            continue
        fields = _Fields(place, _object(place, line))
        sweep = next((sweep for mark, sweep in SWEEPS.items() if mark in fields.values), None)
        if sweep is None:
            raise LabResultsError(
                f"{place}: it has none of the fields {', '.join(SWEEPS)}; upload the output of `{COMMAND}`."
            )
        for run in sweep.read(fields):
            key = (sweep.name, *(getattr(run, name) for name in sweep.identity))
            if key in seen:
                raise LabResultsError(f"{place}: the run of line {seen[key]} again; leave one of the two out.")
            seen[key] = number
            if len(seen) > MAX_RUNS:
                raise LabResultsError(f"{place}: the page shows at most {MAX_RUNS:,} runs; upload a part of the file.")
            getattr(results, sweep.name).append(run)
    if not seen:
        raise LabResultsError(f"{_shortened(name)}: the file is empty; upload the output of `{COMMAND}`.")
    return results


def _object(place: str, line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise LabResultsError(f"{place}: the line has more than {MAX_LINE_BYTES >> 20} MiB; a result has a few kB.")
    try:
        found = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise LabResultsError(f"{place}: it is not UTF-8 text; save the output of `{COMMAND}` in UTF-8.") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise LabResultsError(f"{place}: it is not a JSON object; upload the output of `{COMMAND}`.")
    return found


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of an object in a file, read one by one. All methods raise LabResultsError."""

    place: str
    values: Mapping[str, Any]

    def run(self, kind: type[Run], /, **computed: Any) -> Run:
        """Return a run with `computed` fields and, by their types, those that have the names of its other ones."""
        read: dict[Any, Callable[[str], Any]] = {str: self.text, int: self.whole, float: self.number}
        types = get_type_hints(kind)
        found = {name: read.get(types[name], self.optional)(name) for name in types if name not in computed}
        return kind(**found, **computed)

    def text(self, name: str) -> str:
        value = self._required(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_LETTERS:
            raise self._error(name, f"a text of at most {MAX_LETTERS} letters")
        return value

    def number(self, name: str) -> float:
        """Return a number, which may be encoded as in the protocol if it is NaN or infinite."""
        try:
            value = decode_number(self._required(name))
        except (ValueError, OverflowError):
            value = None
        if value is None:
            raise self._error(name, "a number")
        return value

    def optional(self, name: str) -> float | None:
        return None if self.values.get(name) is None else self.number(name)

    def whole(self, name: str, *, least: int = 0) -> int:
        value = self._required(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**53:
            raise self._error(name, f"a whole number from {least} on")
        return value

    def inner(self, name: str) -> "_Fields":
        value = self._required(name)
        if not isinstance(value, dict):
            raise self._error(name, "an object")
        return _Fields(self.place, value)

    def rows(self, name: str) -> list[Any]:
        value = self._required(name)
        if not isinstance(value, list) or len(value) > MAX_LINES:
            raise self._error(name, f"a list of at most {MAX_LINES:,} values")
        return value

    def as_number(self, name: str, value: Any) -> float:
        """A value of a list."""
        return _Fields(self.place, {name: value}).number(name)

    def entry(self, name: str, row: Any, place: int) -> float:
        """A number of a row of a list."""
        if not isinstance(row, list) or len(row) <= place:
            raise self._error(name, "a list of rows of numbers")
        return self.as_number(name, row[place])

    def inner_list(self, name: str) -> list["_Fields"]:
        values = self._required(name)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self._error(name, "a list of objects")
        return [_Fields(self.place, value) for value in values]

    def _required(self, name: str) -> Any:
        if name not in self.values:
            raise LabResultsError(f"{self.place}: {name} is missing; upload the output of `{COMMAND}` as it is.")
        return self.values[name]

    def _error(self, name: str, expected: str) -> LabResultsError:
        return LabResultsError(f"{self.place}: {name} is {_quoted(self.values[name])}, not {expected}.")


def _quoted(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and abs(value) >= 2**63:  # JSON has no bounds
        return "an integer beyond any float or counter"
    return _shortened(json.dumps(value, ensure_ascii=False))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def _one(kind: type[Any]) -> Callable[[_Fields], Iterable[Any]]:
    """Return a reader of objects that have each field of such a run."""
    return lambda fields: [fields.run(kind)]


def _switch(fields: _Fields) -> Iterable[SwitchRun]:
    error = fields.optional("held_out_loss_se")
    return [fields.run(SwitchRun, held_out_loss_se=math.nan if error is None else error)]


def _size(fields: _Fields) -> Iterable[ScalingRun]:
    return [fields.run(ScalingRun, **{name: fields.whole(name, least=1) for name in ("width", "parameters", "tokens")})]


def _safeguard(fields: _Fields) -> Iterable[UnstableRun]:
    jumps = fields.inner_list("jumps")
    lost = sum(max(0, jump.whole("end") - jump.whole("begin")) for jump in jumps)
    largest = max((_ratio(jump.number("peak"), jump.number("level")) for jump in jumps), default=None)
    return [fields.run(UnstableRun, num_jumps=len(jumps), steps_lost=lost, largest_jump=largest)]


def _ratio(peak: float, level: float) -> float:
    """Return the ratio; infinite if the peak is not finite, or the level is no loss to jump from."""
    return peak / level if math.isfinite(peak) and level > 0.0 else math.inf


def _way(fields: _Fields) -> Iterable[ExposureRun]:
    of_way = {"trained_with": fields.text("trained_with"), "loss_floor": fields.number("loss_floor")}
    for model in fields.inner_list("models"):
        exposure = model.inner("exposure")
        means = {name: exposure.inner(name).number("mean") for name in ("true_prefixes", "own_prefixes", "bias")}
        yield model.run(ExposureRun, **of_way, **means)


def _calibration(fields: _Fields) -> Iterable[CalibrationRun]:
    bins = [[fields.entry("bins", each, place) for place in range(3)] for each in fields.rows("bins")]
    total = sum(count for count, _, _ in bins)
    error = sum(count * abs(sure - right) for count, sure, right in bins) / total if total > 0 else math.nan
    return [fields.run(CalibrationRun, error=error)]


def _abilities(fields: _Fields) -> Iterable[AbilityRun]:
    kinds = fields.inner("kinds")
    for kind in kinds.values:
        losses = kinds.rows(kind)
        first, last = (kinds.as_number(kind, losses[end]) if losses else math.nan for end in (0, -1))
        yield fields.run(AbilityRun, kind=kind[:MAX_LETTERS], first_loss=first, last_loss=last)


class _Sweep(NamedTuple):
    name: str
    """Name of its field in LabResults."""
    identity: Sequence[str]
    """Fields by which its runs differ."""
    read: Callable[[_Fields], Iterable[Any]]


SWEEPS: Mapping[str, _Sweep] = {
    "recipe": _Sweep("switches", ("recipe", "seed"), _switch),
    "width": _Sweep("scaling", ("width", "tokens", "seed"), _size),
    "safeguard": _Sweep("unstable", ("safeguard", "seed"), _safeguard),
    "trained_with": _Sweep("exposure", ("trained_with", "seed"), _way),
    "temperature": _Sweep("temperature", ("temperature", "seed"), _one(TemperatureRun)),
    "probability": _Sweep("gradients", ("probability",), _one(Gradients)),
    "smoothing": _Sweep("calibration", ("smoothing", "seed"), _calibration),
    "copied": _Sweep("abilities", ("kind", "seed"), _abilities),
}
"""Sweeps by a field that only their results have."""

SHIPPED = tuple(f"lab-{sweep.name}" for sweep in SWEEPS.values())
"""Files of MEASUREMENTS, without `.jsonl`."""
