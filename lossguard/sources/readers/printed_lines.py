"""Lines that trainers print: one pattern for each trainer, and lines that a user's `--pattern` describes.

Names stay as they are printed; times without zone are local. nanochat prints an exponential moving average of its loss,
Megatron-LM and word_language_model a mean. Megatron-LM leaves out a loss that is NaN: it is recorded as NaN unless the
iterations of the line were skipped. Every parser takes a time that is linear in the length of the line.
"""

import math
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lossguard.sources.rows import LineParser, Row
from lossguard.vocabulary.errors import ConfigurationError, LogOnce
from lossguard.vocabulary.protocol import MAX_STEP
from lossguard.vocabulary.source_facts import SourceFacts

if TYPE_CHECKING:
    from lossguard.sources.names import NameMap

MAX_LINE = 64 << 10
"""Maximum bytes of a line that is read; a longer one holds no row."""
KEYWORDS = (b"loss", b"iteration ", b"bpb", b" trl:", b" tel:")
"""Texts of which each line of a known trainer holds at least one: a cheap test before the patterns."""

_STEP = rb"(\d{1,15})"
_NUMBER = rb"[-+]?(?:nan|inf(?:inity)?|\d[\d,]*(?:\.\d*)?(?:[eE][-+]?\d+)?)"
_LEADING_NUMBER = re.compile(_NUMBER, re.IGNORECASE)
_ESCAPES = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")  # colours, and "erase the line" of a progress bar
_TIME = re.compile(rb"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?")


def _number(text: bytes) -> float:
    return float(text.replace(b",", b""))


def _pattern(text: bytes) -> re.Pattern[bytes]:
    """Compile a pattern in which STEP and NUMBER stand for a group of a step and of a number."""
    return re.compile(text.replace(b"STEP", _STEP).replace(b"NUMBER", b"(%b)" % _NUMBER), re.IGNORECASE)


def _time(line: bytes) -> float | None:
    """Return the first date and time of a line, as local time."""
    found = _TIME.search(line)
    if found is None:
        return None
    try:
        parsed = time.strptime(found[1].decode().replace("T", " "), "%Y-%m-%d %H:%M:%S")
        return time.mktime(parsed) + float(b"0." + (found[2] or b"0"))
    except (ValueError, OverflowError):
        return None


def _pairs(text: bytes, pattern: re.Pattern[bytes]) -> dict[str, float]:
    return {name.decode(errors="replace"): _number(value) for name, value in pattern.findall(text)}


_MEGATRON = _pattern(rb"(?:^|[\s:\]])iteration\s+STEP\s*/\s*\d+ \|(.*)")
_MEGATRON_VALIDATION = _pattern(rb"validation loss at iteration STEP[^|]{0,99}\|(.*)")
_ELAPSED = re.compile(r"elapsed time per iteration \((m?s)\)")


class MegatronLM:
    """[2026-05-28 13:01:07] iteration 50/ 45776 | consumed samples: 25600 | .. | lm loss: 8.184724E+00 | .."""

    def __init__(self) -> None:
        self._loss = "lm loss"

    def __call__(self, line: bytes) -> Row | None:
        if (found := _MEGATRON.search(line)) is not None:
            return Row(int(found[1]), _time(line), self._training(self._values(found[2])))
        if (found := _MEGATRON_VALIDATION.search(line)) is not None:
            values = self._values(found[2]).items()
            return Row(
                int(found[1]), None, {f"validation {name.removesuffix(' value')}": each for name, each in values}
            )
        return None

    def _values(self, text: bytes) -> dict[str, float]:
        values = {}
        for part in text.split(b"|"):
            name, _, value = part.partition(b":")
            if (found := _LEADING_NUMBER.match(value.lstrip())) is not None and name.strip():
                values[name.strip().decode(errors="replace")] = _number(found[0])
        return values

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


_TORCHTITAN = _pattern(rb"(validate )?step:\s*STEP\s+loss:\s*NUMBER(.*)")
_TORCHTITAN_PAIR = _pattern(rb"(?<![a-z_])([a-z_]+):\s*NUMBER")


def torchtitan(line: bytes) -> Row | None:
    """[titan] 2026-02-24 19:46:17,508 - root - INFO - step:  4  loss:  7.62585  grad_norm: 26.6250  memory: .."""
    found = _TORCHTITAN.search(line)
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


_NANOGPT = _pattern(rb"(?:^|\s)iter STEP: loss NUMBER, time NUMBER\s?ms(?:, mfu NUMBER%)?")
_NANOGPT_EVAL = _pattern(rb"(?:^|\s)step STEP: train loss NUMBER, val loss NUMBER")


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


_MODDED_NANOGPT = _pattern(rb"(?:^|\s)step:STEP/\d+,? (.*)")
_MODDED_NANOGPT_PAIR = _pattern(rb"(?<![a-z_])([a-z_]+):NUMBER")


def modded_nanogpt(line: bytes) -> Row | None:
    """step:250/1490 val_loss:4.5113 train_time:7876ms step_avg:31.50ms"""
    found = _MODDED_NANOGPT.search(line)
    if found is None:
        return None
    values = _pairs(found[2], _MODDED_NANOGPT_PAIR)
    return Row(int(found[1]), None, values) if "train_time" in values else None


_NANOCHAT = _pattern(rb"(?:^|\s)step STEP(?:/\d+)? \([\d.]+%\)\s*\| loss: NUMBER \|(.*)")
_NANOCHAT_PAIR = _pattern(rb"(?<![a-z0-9_/])([a-z][a-z0-9_/]*):\s*NUMBER")
_NANOCHAT_EVAL = _pattern(rb"(?:^|\s)Step STEP \| Validation bpb: NUMBER")
_NANOCHAT_EMA = 0.9
_CLOCKS = frozenset(("time", "remaining", "eta"))


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


_Z_SCORE = rb"(?: \([^)]{0,20}\))?"
_LLMC = _pattern(
    rb"(?:^|\s)step\s+STEP/\d+ \| (?:train )?loss NUMBER%b\s?\| norm NUMBER%b\s?\| lr NUMBER \|(.*)"
    % (_Z_SCORE, _Z_SCORE)
)
_LLMC_CPU = _pattern(rb"^step STEP: train loss NUMBER \(took NUMBER ms\)")
_LLMC_RATE = _pattern(rb"\s*\(?NUMBER (ms|tok/s)")
_LLMC_EVAL = _pattern(rb"^val loss:? NUMBER\s*$")
_LLMC_FILE = _pattern(rb"^s:STEP (trl|tel):NUMBER(?: lr:NUMBER norm:NUMBER)?")


class LlmC:
    """step    2/19560 | loss 10.958507 (+nanz)| norm 22.0968 (+nanz)| lr 1.71e-06 | 2494.79 ms | 40.3% bf16 MFU | ..

    Its file main.log has the lines `s:2 trl:10.9585 lr:0.000002 norm:22.10` and `s:250 tel:6.3097`.
    """

    def __init__(self) -> None:
        self._step = 0  # a line "val loss 10.6" names none: it is printed after the step's own line

    def __call__(self, line: bytes) -> Row | None:
        if (found := _LLMC_EVAL.search(line)) is not None:
            return Row(self._step, None, {"val loss": _number(found[1])})
        if (found := _LLMC_FILE.search(line)) is not None:
            names = ("loss", "lr", "grad_norm") if found[2] == b"trl" else ("val loss",)
            return Row(
                int(found[1]), None, dict(zip(names, map(_number, filter(None, found.groups()[2:])), strict=False))
            )
        if (found := _LLMC.search(line)) is not None:
            values = {"loss": _number(found[2]), "grad_norm": _number(found[3]), "lr": _number(found[4])}
            for part in found[5].split(b"|"):
                if (rate := _LLMC_RATE.match(part)) is not None and rate[2] == b"ms":
                    values["step_seconds"] = _number(rate[1]) / 1000.0
                elif rate is not None:
                    values["tokens_per_second"] = _number(rate[1])
        elif (found := _LLMC_CPU.search(line)) is not None:
            values = {"loss": _number(found[2]), "step_seconds": _number(found[3]) / 1000.0}
        else:
            return None
        self._step = int(found[1])
        return Row(self._step, None, values)


_LITGPT = _pattern(
    rb"Epoch \d+ \| iter \d+ step STEP \| loss train: NUMBER, val: (?:NUMBER|n/a) \| iter time: NUMBER ms"
)
_LITGPT_EVAL = _pattern(rb"^iter \d+: val loss NUMBER, val time: NUMBER ms")


class LitGPT:
    """Epoch 1 | iter 512 step 64 | loss train: 10.441, val: n/a | iter time: 375.20 ms (step) remaining time: 1:02:03

    With gradient accumulation several lines name one step. The first is printed when the step is done; the others are
    of the step after it.
    """

    def __init__(self) -> None:
        self._step = 0
        self._has_row = False

    def __call__(self, line: bytes) -> Row | None:
        if (found := _LITGPT_EVAL.search(line)) is not None:  # its iterations are not steps
            return Row(self._step, None, {"val loss": _number(found[1])})
        found = _LITGPT.search(line)
        if found is None or (self._has_row and int(found[1]) == self._step):
            return None
        self._step, self._has_row = int(found[1]), True
        return Row(self._step, None, {"loss train": _number(found[2]), "iter_time": _number(found[4]) / 1000.0})


_WORD_LANGUAGE_MODEL = _pattern(
    rb"^\| epoch\s+(\d{1,6}) \|\s+(\d{1,9})/\s*(\d{1,9}) batches \| lr NUMBER \| ms/batch\s+NUMBER \| loss\s+NUMBER \|"
)
_WORD_LANGUAGE_MODEL_EVAL = _pattern(rb"^\| end of epoch\s+(\d{1,6}) \| time:\s*NUMBERs \| valid loss\s+NUMBER \|")


class WordLanguageModel:
    """| epoch   1 |   200/ 2983 batches | lr 20.00 | ms/batch 10.85 | loss  7.63 | ppl  2054.26

    Batches are counted anew in each epoch: the step counts them from the first epoch on.
    """

    def __init__(self) -> None:
        self._num_batches = 0  # of an epoch

    def __call__(self, line: bytes) -> Row | None:
        if (found := _WORD_LANGUAGE_MODEL.search(line)) is not None:
            epoch, batch, self._num_batches = (int(each) for each in found.groups()[:3])
            names = ("lr", "step_seconds", "loss")
            values = dict(zip(names, map(_number, found.groups()[3:]), strict=True))
            values["step_seconds"] /= 1000.0
            return Row((epoch - 1) * self._num_batches + batch, None, values)
        if (found := _WORD_LANGUAGE_MODEL_EVAL.search(line)) is not None and self._num_batches:
            return Row(int(found[1]) * self._num_batches, None, {"valid loss": _number(found[3])})
        return None


@dataclass(frozen=True, slots=True)
class Pattern:
    """The lines of one trainer, or those that a user describes."""

    config: dict[str, Any]
    """Recorded as the configuration of the run: the trainer, or the user's pattern."""
    make: Callable[[], Callable[[bytes], Row | None]]
    facts: SourceFacts = field(default_factory=SourceFacts)
    is_own: bool = False
    """True for a user's pattern."""

    @property
    def what(self) -> str:
        """The lines, for people."""
        return "lines that fit --pattern" if self.is_own else f"lines of {self.config['trainer']}"


PATTERNS = (
    Pattern({"trainer": "Megatron-LM"}, MegatronLM, SourceFacts(averaged=True)),
    Pattern({"trainer": "torchtitan"}, lambda: torchtitan),
    Pattern({"trainer": "nanoGPT"}, lambda: nanogpt),
    Pattern({"trainer": "modded-nanogpt"}, lambda: modded_nanogpt),
    Pattern({"trainer": "nanochat"}, lambda: nanochat, SourceFacts(smoothing=_NANOCHAT_EMA)),
    Pattern({"trainer": "llm.c"}, LlmC),
    Pattern({"trainer": "litgpt"}, LitGPT),
    Pattern({"trainer": "word_language_model"}, WordLanguageModel, SourceFacts(averaged=True)),
)


class LogParser(LineParser):
    """Lines of one trainer; those of several ranks that print the same step are one row. No line has a problem: what
    fits no pattern is for people."""

    ends = b"\n\r"

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.config = pattern.config
        self.facts = pattern.facts
        self._parse = pattern.make()
        self._newest: Row | None = None
        self._before: dict[str, float] | None = None  # of the step before the newest: a slower rank prints it again

    def parse(self, line: bytes) -> Row | None:
        if len(line) > MAX_LINE:
            return None
        row = self._parse(_ESCAPES.sub(b"", line) if b"\x1b" in line else line)
        newest = self._newest
        if row is None or row.step >= MAX_STEP:
            return None
        if newest is not None and row.step < newest.step and row.values == self._before:
            return None
        if newest is None or newest.step != row.step:
            self._before = None if newest is None else newest.values
            self._newest = row
        return row

    def shows(self, row: Row) -> bool:
        """Return True if `row` shows that a log has lines of this pattern: it holds a loss, or the user says so."""
        return self.pattern.is_own or any("loss" in name for name in row.values)

    def begin_anew(self) -> None:
        self._parse, self._newest, self._before = self.pattern.make(), None, None


# Lines that a user describes by a regular expression.

MAX_SECONDS = 0.25
"""CPU seconds after which the search of a user's pattern in one line is given up."""
MAX_SLOW_LINES = 8
"""Lines of a log whose search may be given up before the pattern is used no more."""


def own_pattern(text: str, names: "NameMap | None" = None) -> Pattern:
    """Return the pattern of `--pattern`; `names` say which of its groups are metrics (None: it was checked before).

    Raises ConfigurationError for what is no regular expression, and for one without a step or a loss.
    """
    given = f"--pattern {text!r:.200}"
    try:
        groups = re.compile(text).groupindex
    except (re.error, OverflowError, RecursionError) as problem:
        raise ConfigurationError(f"{given} is no regular expression: {problem}") from None
    if "step" not in groups:
        raise ConfigurationError(rf"{given} has no group named step: write (?P<step>\d+) where the step stands")
    if names is not None and not any(names.metric_of(name) == "loss" for name in groups):
        raise ConfigurationError(
            rf"{given} has no group named loss: write (?P<loss>\S+), or say which group is it with --map loss=GROUP"
        )
    return Pattern({"pattern": text}, partial(_OwnLines, text), is_own=True)


class _TooSlow(Exception):
    """The search takes too long."""


class _OwnLines:
    """Searches lines for a user's pattern; a search that takes too long is given up."""

    def __init__(self, text: str) -> None:
        self._pattern = re.compile(text)
        self._is_searching = False
        self._num_slow = 0
        self._log_once = LogOnce()
        self._is_limited = threading.current_thread() is threading.main_thread()  # signals reach no other thread
        if self._is_limited:
            signal.signal(signal.SIGVTALRM, self._interrupt)

    def __call__(self, line: bytes) -> Row | None:
        found = self._search(line.decode(errors="replace"))
        if found is None or (step := _leading_number(found["step"])) is None or not 0 <= step < MAX_STEP:
            return None
        values = {name: _leading_number(text) for name, text in found.groupdict().items() if name != "step"}
        known = {name: value for name, value in values.items() if value is not None}
        return Row(int(step), None, known) if known else None

    def _search(self, line: str) -> re.Match[str] | None:
        if not self._is_limited:
            return self._pattern.search(line)
        if self._num_slow >= MAX_SLOW_LINES:
            return None
        try:
            self._is_searching = True
            signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS)
            try:
                return self._pattern.search(line)
            finally:
                self._is_searching = False
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except _TooSlow:
            self._num_slow += 1
            self._log_once.warn_once(
                "slow", f"--pattern takes more than {MAX_SECONDS} s for a line, which is not read: make it simpler"
            )
            if self._num_slow == MAX_SLOW_LINES:
                self._log_once.warn(f"--pattern was too slow for {MAX_SLOW_LINES} lines: no more lines are read")
            return None

    def _interrupt(self, number: int, frame: object) -> None:
        if self._is_searching:
            raise _TooSlow


def _leading_number(text: str | None) -> float | None:
    """Return the number at the beginning of a group; None if there is none."""
    found = None if text is None else _LEADING_NUMBER.match(text.strip().encode("ascii", "replace"))
    return None if found is None else _number(found[0])
