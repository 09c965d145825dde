"""What trainers print: the lines of Megatron-LM, torchtitan, nanoGPT, nanochat and llm.c, one pattern each.

Names stay as they are printed; times without zone are local. nanochat prints an exponential moving average of its loss;
Megatron-LM leaves out a loss that is NaN: it is recorded as NaN unless the iterations of the line were skipped.
"""

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lossguard.sources.joining import Joiner
from lossguard.sources.readers.growing_file import rotated_files
from lossguard.sources.readers.line_format import LineFollower, beginning, files_in, follower, stored
from lossguard.sources.rows import Row
from lossguard.sources.source_run import SourceRun
from lossguard.vocabulary.protocol import MAX_STEP
from lossguard.vocabulary.source_facts import SourceFacts

WHAT = "logs of Megatron-LM, torchtitan, nanoGPT, nanochat or llm.c"
SUFFIXES = (".log", ".txt", ".out", ".err")
MAX_BANNER = 4 << 20
"""Bytes of a log, in which its first row must be: a launcher may print its configuration from each rank."""

_NUMBER = rb"[-+]?(?:nan|inf(?:inity)?|\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?)"
_COLOURS = re.compile(rb"\x1b\[[0-9;]*m")
_TIME = re.compile(rb"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,](\d+))?")


def _number(text: bytes) -> float:
    return float(text.replace(b",", b""))


def _time(line: bytes) -> float | None:
    """The first date and time of a line, as local time."""
    found = _TIME.search(line)
    if found is None:
        return None
    try:
        parsed = time.strptime(found[1].decode().replace("T", " "), "%Y-%m-%d %H:%M:%S")
        return time.mktime(parsed) + float(b"0." + (found[2] or b"0"))
    except (ValueError, OverflowError):
        return None


def _pairs(text: bytes, pattern: re.Pattern[bytes]) -> dict[str, float]:
    return {name.strip().decode(errors="replace"): _number(value) for name, value in pattern.findall(text)}


_MEGATRON = re.compile(rb"(?:^|[\s:\]])iteration\s+(\d+)\s*/\s*\d+ \|(.*)")
_MEGATRON_PAIR = re.compile(rb"([^|:]+):\s*(%b)[^|]*(?=\||$)" % _NUMBER, re.IGNORECASE)
_MEGATRON_VALIDATION = re.compile(rb"validation loss at iteration (\d+)[^|]*\|(.*)")
_ELAPSED = re.compile(r"elapsed time per iteration \((m?s)\)")


class MegatronLM:
    """[2026-05-28 13:01:07] iteration 50/ 45776 | consumed samples: 25600 | .. | lm loss: 8.184724E+00 | .."""

    def __init__(self) -> None:
        self._loss = "lm loss"

    def __call__(self, line: bytes) -> Row | None:
        if (found := _MEGATRON.search(line)) is not None:
            return Row(int(found[1]), _time(line), self._training(_pairs(found[2], _MEGATRON_PAIR)))
        if (found := _MEGATRON_VALIDATION.search(line)) is not None:
            pairs = _pairs(found[2], _MEGATRON_PAIR).items()
            return Row(int(found[1]), None, {f"validation {name.removesuffix(' value')}": each for name, each in pairs})
        return None

    def _training(self, values: dict[str, float]) -> dict[str, float]:
        for name in list(values):
            if (elapsed := _ELAPSED.fullmatch(name)) is not None:
                values["step_seconds"] = values.pop(name) / (1000.0 if elapsed[1] == "ms" else 1.0)
        values["skipped"] = values.pop("number of skipped iterations", 0.0)
        losses = [name for name in ("lm loss", "loss") if name in values]
        if losses:
            self._loss = losses[0]
        elif values["skipped"] == 0 or values.get("number of nan iterations", 0.0) > 0:
            values[self._loss] = math.nan  # it prints a mean only if it is above 0
        return values


_TORCHTITAN = re.compile(rb"(validate )?step:\s*(\d+)\s+loss:\s*(%b)(.*)" % _NUMBER, re.IGNORECASE)
_TORCHTITAN_PAIR = re.compile(rb"([a-z_]+):\s*(%b)" % _NUMBER, re.IGNORECASE)


def torchtitan(line: bytes) -> Row | None:
    """[titan] 2026-02-24 19:46:17,508 - root - INFO - step:  4  loss:  7.62585  grad_norm: 26.6250  memory: .."""
    found = _TORCHTITAN.search(_COLOURS.sub(b"", line))
    if found is None:
        return None
    values = {"loss": _number(found[3])} | _pairs(found[4], _TORCHTITAN_PAIR)
    if "mfu" in values:
        values["mfu"] /= 100.0
    if "tps" in values:  # of one device
        values["tokens_per_second_per_device"] = values.pop("tps")
    if found[1]:
        return Row(int(found[2]), _time(line), {"validation loss": values["loss"]})
    return Row(int(found[2]), _time(line), values)


_NANOGPT = re.compile(
    rb"(?:^|\s)iter (\d+): loss (%b), time (%b)\s?ms(?:, mfu (%b)%%)?" % ((_NUMBER,) * 3), re.IGNORECASE
)
_NANOGPT_EVAL = re.compile(rb"(?:^|\s)step (\d+): train loss (%b), val loss (%b)" % ((_NUMBER,) * 2), re.IGNORECASE)


def nanogpt(line: bytes) -> Row | None:
    """iter 10: loss 3.1462, time 13.86ms, mfu 26.88%"""
    if (found := _NANOGPT.search(line)) is not None:
        values = {"loss": _number(found[2]), "step_seconds": _number(found[3]) / 1000.0}
        if found[4] is not None and _number(found[4]) >= 0.0:  # -100 before it is measured
            values["mfu"] = _number(found[4]) / 100.0
        return Row(int(found[1]), None, values)
    if (found := _NANOGPT_EVAL.search(line)) is not None:
        return Row(int(found[1]), None, {"eval/train_loss": _number(found[2]), "val loss": _number(found[3])})
    return None


_NANOCHAT = re.compile(rb"(?:^|\s)step (\d+)(?:/\d+)? \([\d.]+%%\)\s*\| loss: (%b) \|(.*)" % _NUMBER, re.IGNORECASE)
_NANOCHAT_PAIR = re.compile(rb"([a-z0-9_/ ]+):\s*(%b)" % _NUMBER, re.IGNORECASE)
_NANOCHAT_EVAL = re.compile(rb"(?:^|\s)Step (\d+) \| Validation bpb: (%b)" % _NUMBER, re.IGNORECASE)
_NANOCHAT_EMA = 0.9


def nanochat(line: bytes) -> Row | None:
    """step 01670/20000 (8.35%) | loss: 0.823456 | lrm: 1.00 | dt: 125.43ms | tok/sec: 32,658 | mfu: 42.15 | .."""
    if (found := _NANOCHAT.search(line)) is not None:
        values = {"loss": _number(found[2])} | _pairs(found[3], _NANOCHAT_PAIR)
        if "dt" in values:
            values["step_seconds"] = values.pop("dt") / 1000.0
        for name in ("mfu", "bf16_mfu"):
            if name in values:
                values["mfu"] = values.pop(name) / 100.0
        return Row(int(found[1]), None, {name: value for name, value in values.items() if name not in _CLOCKS})
    if (found := _NANOCHAT_EVAL.search(line)) is not None:
        return Row(int(found[1]), None, {"held_out_bits_per_byte": _number(found[2])})
    return None


_CLOCKS = frozenset(("total time", "remaining", "eta"))

_Z_SCORE = rb"(?: \([^)]*\))?"
_LLMC = re.compile(
    rb"(?:^|\s)step\s+(\d+)/\d+ \| (?:train )?loss (%b)%b\s?\| norm (%b)%b\s?\| lr (%b) \|(.*)"
    % (_NUMBER, _Z_SCORE, _NUMBER, _Z_SCORE, _NUMBER),
    re.IGNORECASE,
)
_LLMC_MS = re.compile(rb"(%b) ms \|" % _NUMBER, re.IGNORECASE)
_LLMC_RATE = re.compile(rb"(%b) tok/s" % _NUMBER, re.IGNORECASE)
_LLMC_EVAL = re.compile(rb"^val loss:? (%b)\s*$" % _NUMBER, re.IGNORECASE)


class LlmC:
    """step    2/19560 | loss 10.958507 (+nanz)| norm 22.0968 (+nanz)| lr 1.71e-06 | 2494.79 ms | 40.3% bf16 MFU | .."""

    def __init__(self) -> None:
        self._step = 0  # a line "val loss 10.6" names none: it is printed after the step's own line

    def __call__(self, line: bytes) -> Row | None:
        if (found := _LLMC.search(line)) is not None:
            self._step = int(found[1])
            values = {"loss": _number(found[2]), "grad_norm": _number(found[3]), "lr": _number(found[4])}
            if (each := _LLMC_MS.search(found[5])) is not None:
                values["step_seconds"] = _number(each[1]) / 1000.0
            if (each := _LLMC_RATE.search(found[5])) is not None:
                values["tokens_per_second"] = _number(each[1])
            return Row(self._step, None, values)
        if (found := _LLMC_EVAL.search(line)) is not None:
            return Row(self._step, None, {"val loss": _number(found[1])})
        return None


@dataclass(frozen=True, slots=True)
class Pattern:
    """The lines of one trainer."""

    trainer: str
    make: Callable[[], Callable[[bytes], Row | None]]
    facts: SourceFacts = field(default_factory=SourceFacts)


PATTERNS = (
    Pattern("Megatron-LM", MegatronLM, SourceFacts(averaged=True)),
    Pattern("torchtitan", lambda: torchtitan),
    Pattern("nanoGPT", lambda: nanogpt),
    Pattern("nanochat", lambda: nanochat, SourceFacts(smoothing=_NANOCHAT_EMA)),
    Pattern("llm.c", LlmC),
)


class LogParser:
    """Lines of one trainer; those of several ranks that print the same step are one row."""

    ends = b"\n\r"

    def __init__(self, pattern: Pattern) -> None:
        self.facts = pattern.facts
        self._pattern = pattern
        self._parse = pattern.make()
        self._newest: Row | None = None

    def parse(self, line: bytes) -> Row | None:
        row = self._parse(line)
        newest = self._newest
        if row is None or row.step >= MAX_STEP:
            return None
        if newest is not None and row.step < newest.step and row.values == self._before:
            return None
        if newest is None or newest.step != row.step:
            self._before = None if newest is None else newest.values
            self._newest = row
        return row

    _before: dict[str, float] | None = None  # of the step before the newest one: a slower rank prints it again

    def begin_anew(self) -> None:
        self._newest, self._before = None, None

    def is_whole(self, line: bytes) -> bool:
        return False  # a number may be cut off


def pattern_of(path: Path) -> tuple[Pattern, bytes] | None:
    """The pattern that fits a file, and the first line that it fits; None if there is none."""
    lines = beginning(path, MAX_BANNER)
    for pattern in PATTERNS:
        parse = pattern.make()
        for line in lines:
            if (row := parse(line)) is not None and any("loss" in name for name in row.values):
                return pattern, line
    return None


def places_in(path: Path) -> Iterator[Path]:
    """The logs at or below `path`."""
    return (file for file in files_in(path, SUFFIXES) if _watched_pattern(file) is not None)


def _watched_pattern(path: Path) -> Pattern | None:
    """That of the file or, while it has no row since it was rotated, of the files that it was renamed to."""
    found = (pattern_of(file) for file in (path, *rotated_files(path)))
    return next((each[0] for each in found if each is not None), None)


def runs_in(path: Path) -> Iterator[SourceRun]:
    for file in files_in(path, SUFFIXES):
        if (found := pattern_of(file)) is not None:
            pattern, line = found
            yield stored(file, "log", line, partial(LogParser, pattern), config={"trainer": pattern.trainer})


def follow(path: Path, joiner: Joiner) -> LineFollower:
    """The rows of a log while it grows. It must have a first row: `places_in` names it then."""
    pattern = _watched_pattern(path)
    assert pattern is not None
    return follower(path, LogParser(pattern), joiner)
