"""Reads results of the trainer's lab (`python -m trainer lab .. --json`): docs/measurements/, or an uploaded file.

One JSON object per line. The fields say which sweep a line belongs to, so that a file may hold several of them.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboard.data.lab_results import (
    AbilityRun,
    CalibrationRun,
    ExposureRun,
    Gradients,
    LabResults,
    ScalingRun,
    SwitchRun,
    TemperatureRun,
    UnstableRun,
)
from db.cli.command_engine import as_typed_here
from lossguard.vocabulary.protocol import decode_number

INSTALLED = Path(__file__).parent / "measurements"
"""Measurements of the wheel, which has no docs/."""
MEASUREMENTS = INSTALLED if INSTALLED.is_dir() else Path(__file__).parents[2] / "docs" / "measurements"
SHIPPED = (
    "lab-switches",
    "lab-scaling",
    "lab-unstable",
    "lab-exposure",
    "lab-temperature",
    "lab-gradients",
    "lab-calibration",
    "lab-abilities",
)
"""Files there, without `.jsonl`."""
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
            key = (sweep.name, run.identity)
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


def _switch(fields: _Fields) -> Iterator[SwitchRun]:
    error = fields.optional("held_out_loss_se")
    yield SwitchRun(
        recipe=fields.text("recipe"),
        seed=fields.whole("seed"),
        held_out_loss=fields.number("held_out_loss"),
        held_out_loss_se=math.nan if error is None else error,
        bits_per_byte=fields.optional("bits_per_byte"),
        bits_per_character=fields.optional("bits_per_character"),
        log_z=fields.number("log_z"),
    )


def _size(fields: _Fields) -> Iterator[ScalingRun]:
    yield ScalingRun(
        width=fields.whole("width", least=1),
        seed=fields.whole("seed"),
        parameters=fields.whole("parameters", least=1),
        tokens=fields.whole("tokens", least=1),
        held_out_loss=fields.number("held_out_loss"),
    )


def _safeguard(fields: _Fields) -> Iterator[UnstableRun]:
    jumps = fields.inner_list("jumps")
    yield UnstableRun(
        safeguard=fields.text("safeguard"),
        seed=fields.whole("seed"),
        final_loss=fields.number("final_loss"),
        num_jumps=len(jumps),
        steps_lost=sum(max(0, jump.whole("end") - jump.whole("begin")) for jump in jumps),
        largest_jump=max((_ratio(jump.number("peak"), jump.number("level")) for jump in jumps), default=None),
    )


def _ratio(peak: float, level: float) -> float:
    """Return the ratio; infinite if the peak is not finite, or the level is no loss to jump from."""
    return peak / level if math.isfinite(peak) and level > 0.0 else math.inf


def _way(fields: _Fields) -> Iterator[ExposureRun]:
    for model in fields.inner_list("models"):
        exposure = model.inner("exposure")
        yield ExposureRun(
            trained_with=fields.text("trained_with"),
            seed=model.whole("seed"),
            loss_floor=fields.number("loss_floor"),
            held_out_loss=model.number("held_out_loss"),
            true_prefixes=exposure.inner("true_prefixes").number("mean"),
            own_prefixes=exposure.inner("own_prefixes").number("mean"),
            bias=exposure.inner("bias").number("mean"),
            true_inputs=model.number("true_inputs"),
        )


def _temperature(fields: _Fields) -> Iterator[TemperatureRun]:
    yield TemperatureRun(
        temperature=fields.number("temperature"),
        seed=fields.whole("seed"),
        loss=fields.number("loss"),
        entropy=fields.number("entropy"),
        hits=fields.number("hits"),
    )


def _gradients(fields: _Fields) -> Iterator[Gradients]:
    yield Gradients(
        probability=fields.number("probability"),
        cross_entropy=fields.number("cross_entropy"),
        squared_error_one_wrong=fields.number("squared_error_one_wrong"),
        squared_error_spread=fields.number("squared_error_spread"),
    )


def _calibration(fields: _Fields) -> Iterator[CalibrationRun]:
    bins = [
        (fields.entry("bins", each, 0), fields.entry("bins", each, 1), fields.entry("bins", each, 2))
        for each in fields.rows("bins")
    ]
    total = sum(count for count, _, _ in bins)
    yield CalibrationRun(
        smoothing=fields.number("smoothing"),
        seed=fields.whole("seed"),
        loss=fields.number("loss"),
        error=sum(count * abs(sure - right) for count, sure, right in bins) / total if total > 0 else math.nan,
        surest_loss=fields.number("surest_loss"),
        loss_floor=fields.number("loss_floor"),
    )


def _abilities(fields: _Fields) -> Iterator[AbilityRun]:
    kinds = fields.inner("kinds")
    for kind in kinds.values:
        losses = kinds.rows(kind)
        yield AbilityRun(
            kind=kind[:MAX_LETTERS],
            seed=fields.whole("seed"),
            first_loss=kinds.as_number(kind, losses[0]) if losses else math.nan,
            last_loss=kinds.as_number(kind, losses[-1]) if losses else math.nan,
        )


@dataclass(frozen=True, slots=True)
class _Sweep:
    name: str
    """Name of its field in LabResults."""
    read: Callable[[_Fields], Iterator[Any]]


SWEEPS: Mapping[str, _Sweep] = {
    "recipe": _Sweep("switches", _switch),
    "width": _Sweep("scaling", _size),
    "safeguard": _Sweep("unstable", _safeguard),
    "trained_with": _Sweep("exposure", _way),
    "temperature": _Sweep("temperature", _temperature),
    "probability": _Sweep("gradients", _gradients),
    "smoothing": _Sweep("calibration", _calibration),
    "copied": _Sweep("abilities", _abilities),
}
"""Sweeps by a field that only their results have."""
