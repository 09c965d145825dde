"""Runs that no page and no report may fail on: what a loop, a clock and a person can send at their worst."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from lossguard.vocabulary.protocol import PROBE
from lossguard.vocabulary.wire import Probe
from tests.dashboard.hostile import LONG, MAX_STEP, Column, HostileRun, Part
from tests.monitor.client import NOW

NAN, INF = math.nan, math.inf
LATEST = 1e11 - 1.0
"""The latest time that the collector takes: in the year 5138."""
EMOJI, RIGHT_TO_LEFT = "\N{FIRE}" * 128, "\u202eloss\u200f\u2067x"
MARKUP = '<script>alert(1)</script><b onload=x>%{x} ${y} $a$ "quoted" & </svg> http://e.vil www.e.vil a@e.vil'

NAMES_OF_ALL = (
    *("loss", "perplexity", "grad_norm", "log_z", "lr", "tokens_per_second", "mfu"),
    *("held_out_loss", "held_out_bits_per_byte", "own/metric"),
)


def everywhere(values: Column, steps: Sequence[int] | None = None, others: Mapping[str, Column] | None = None) -> Part:
    """A segment in which every signal, a rate and a metric of the user's own have these values."""
    metrics: dict[str, Column] = dict.fromkeys(NAMES_OF_ALL, values)
    metrics.update(others or {})
    return Part(steps=range(len(values)) if steps is None else steps, metrics=metrics)


def repeated(*values: float | None, count: int = 60) -> list[float | None]:
    return list(islice(cycle(values), count))


def probe(step: int, prompt: str, likeliest: float, rest: float, target: float | None = None) -> dict[str, Any]:
    """An event with a probe of two tokens; its arguments are log probabilities."""
    taken = Probe(
        prompt=prompt, tokens=(MARKUP, EMOJI), log_probabilities=(likeliest, likeliest),
        target=None if target is None else RIGHT_TO_LEFT, target_log_probability=target,
        rest_count=2**40, rest_log_probability=rest,
    )  # fmt: skip
    return {"key": f"p{step}-{prompt[:9]}", "step": step, "time": NOW, "kind": PROBE, "details": taken.to_details()}


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {"a": []}


BIG_TOKENS = [2.0**62 + 2.0**40 * index for index in range(60)]
DECLARED: tuple[tuple[int | None, float, str, dict[str, Any]], ...] = (
    (None, 0.0, "note", {}),
    (0, LATEST, MARKUP[:60], {MARKUP: MARKUP, "deep": nested(10)}),
    (MAX_STEP, 0.0, "learning_rate", {"lr": 1e308, "from": "NaN", "huge": 10**400, "text": EMOJI}),
    (3, 0.0, "outlier", {"signal": "loss", "value": 1e308}),
    (4, 0.0, "outlier", {"signal": "loss", "value": "NaN"}),
    (5, 0.0, "outlier", {"signal": "loss", "value": 10**400}),
    (6, 0.0, "outlier", {"signal": "loss"}),
)
NAMES: Mapping[str, Any] = {
    "project": EMOJI,
    "name": RIGHT_TO_LEFT + MARKUP,
    "host": MARKUP,
    "command": LONG,
    "git_commit": MARKUP[:64],
    "devices": [MARKUP, EMOJI],
    "versions": {MARKUP: EMOJI},
    "config": {
        "tags": [MARKUP, EMOJI, RIGHT_TO_LEFT],
        "num_parameters": 10**17,
        "faults": [MARKUP, "nan@3"],
        "vocab_size": 10**300,
        "tokenizer": MARKUP,
        MARKUP: {MARKUP: [1, None, {"x": MARKUP}]},
    },
}
EXTREME = {"peak_value": 1e308, "expected": -1e308, "scale": 5e-324, "reasons": [LONG, MARKUP, EMOJI]}
VERDICT = {
    "cause": "data",
    "sentence": MARKUP,
    "culprits": [{"batch_from": 0, "batch_to": MAX_STEP}],
    "evidence": {
        "arms": [{"state": "same", "batches": MARKUP, "checkpoint": MAX_STEP, "worst": "Infinity", "expected": -1e308}]
    },
}
UNKNOWN = {"peak_value": "Infinity", "expected": "NaN", "scale": "NaN"}
MANY_PARAMETERS = {"num_parameters": 9e17}


def values(run_id: str, repeat: Sequence[float | None], state: str | None = None) -> HostileRun:
    """A run with nothing but these values."""
    return HostileRun(id=run_id, parts=[everywhere(repeated(*repeat))], state=state)


def times(run_id: str, seconds: Sequence[float], **more: Any) -> HostileRun:
    """A run with steps at these times."""
    metrics: dict[str, Column] = {"loss": repeated(2.0), "tokens": BIG_TOKENS}
    return HostileRun(id=run_id, parts=[Part(steps=range(60), metrics=metrics, times=seconds)], **more)


RUNS = (
    HostileRun(id="unopened"),
    HostileRun(id="no-steps", parts=[Part()], incidents=[{}], interventions=[{}], state="failed"),
    HostileRun(id="first-nan", parts=[everywhere([NAN, *repeated(2.0, 2.1)])]),
    values("all-nan", [NAN], "failed"),
    values("mostly-nan", [2.0, NAN, NAN, INF]),
    values("nothing-reported", [None]),
    values("huge-and-negative", [1e308, -1e308]),
    HostileRun(
        id="huge-spike",
        parts=[everywhere([*repeated(2.0, 2.1, 1.9), 1e308, *repeated(2.0)])],
        incidents=[{"details": EXTREME}],
    ),
    values("denormal", [5e-324, 0.0]),
    values("all-sizes", [5e-324, 1.0, 1e308]),
    HostileRun(
        id="gaps",
        parts=[everywhere(repeated(2.0, NAN), [2**40 * index for index in range(60)], others={"tokens": BIG_TOKENS})],
        registration={"total_steps": MAX_STEP, "config": MANY_PARAMETERS},
        incidents=[{"detected_step": 2**45, "peak_step": 2**45, "end_step": 2**45, "details": EXTREME}],
        interventions=[{"rewind_to": 2**41, "details": {"decided_step": 2**45, "verify_at": 2**52, "reasons": [LONG]}}],
    ),
    HostileRun(
        id="late-steps",
        parts=[everywhere(repeated(2.0, 1e308), range(MAX_STEP - 59, MAX_STEP + 1))],
        incidents=[{"onset_step": MAX_STEP - 3, "detected_step": MAX_STEP, "end_step": MAX_STEP}],
        interventions=[{"rewind_to": MAX_STEP}],
    ),
    times(
        "times-going-back",
        [LATEST - index for index in range(60)],
        registration={"started_at": LATEST, "total_steps": 1},
    ),
    times(
        "times-from-zero",
        [0.0] * 50 + [LATEST] * 10,
        registration={"started_at": 0.0, "total_steps": 0},
        events=[
            {"key": f"e{index}", "step": step, "time": at, "kind": kind, "details": details}
            for index, (step, at, kind, details) in enumerate(DECLARED)
        ],
    ),
    HostileRun(
        id="incidents-at-the-ends",
        parts=[everywhere(repeated(2.0, 2.1), range(5, 65))],
        incidents=[
            {"onset_step": 0, "detected_step": 2, "end_step": 3, "details": EXTREME, "verdict": VERDICT},
            {"onset_step": 5, "detected_step": 5, "peak_step": 5, "end_step": 5, "state": "closed"},
            {"onset_step": 64, "detected_step": 64, "kind": "nonfinite", "score": INF, "details": UNKNOWN},
            {
                "onset_step": 10,
                "detected_step": MAX_STEP,
                "end_step": MAX_STEP,
                "kind": "unknown",
                "signal": "own/metric",
            },
            {"segment": 7, "onset_step": 3, "detected_step": 3, "signal": MARKUP[:60], "score": NAN},
        ],
        interventions=[
            {"rewind_to": 0, "details": {"decided_step": 0, "verify_at": 2**52}},
            {"rewind_to": 64, "skip_from": 5, "skip_to": 5, "lr_scale": 0.0},
            {"kind": "hold", "state": "ordered", "rewind_to": None, "skip_from": None, "skip_to": None},
        ],
        state="failed",
    ),
    HostileRun(
        id="overlapping",
        parts=[
            everywhere(repeated(2.0, 1e308), others={"own": repeated(1.0)}),
            Part(
                steps=range(40),
                metrics={"loss": repeated(NAN, count=40), "second": repeated(INF, count=40)},
                reason="rollback",
            ),
            Part(steps=[20], metrics={"third": [1e308]}, fork_step=20, reason="resume"),
            Part(fork_step=10, reason="rollback"),
            Part(steps=[5, 2**40], metrics={"loss": [2.0, NAN]}, fork_step=5, reason="rewind"),
        ],
        incidents=[{"onset_step": 2, "detected_step": 3, "segment": 1}],
        interventions=[{"rewind_to": 0}],
    ),
    HostileRun(
        id="names",
        parts=[everywhere(repeated(2.0, 2.1), others={MARKUP: repeated(1.0), EMOJI: repeated(1e308)})],
        registration=NAMES,
        incidents=[{"details": EXTREME, "kind": MARKUP[:32], "signal": MARKUP[:60]}],
    ),
    HostileRun(
        id="wrong-types",
        parts=[everywhere([2.0])],
        registration={
            "config": {"tags": "x", "faults": 3, "num_parameters": "7", "vocab_size": -1, "tokenizer": ""},
        },
    ),
    HostileRun(
        id="probes",
        parts=[everywhere(repeated(2.0))],
        events=[
            probe(0, "first", NAN, NAN, NAN),
            probe(1, "first", -INF, -INF, -INF),
            probe(2, "first", INF, 0.0, 0.0),
            probe(3, "first", -1e308, -1e308, -1e308),
            probe(4, "first", 1e308, 1e308, 1e308),
            probe(5, "first", -5e-324, -800.0, 5e-324),
            probe(MAX_STEP, "first", -1.0, -1.0, 0.0),
            probe(0, MARKUP, -0.7, NAN),
            probe(0, EMOJI, -1.0, -1.0),
            probe(1, "", NAN, INF, NAN),
        ],
    ),
)
BY_ID = {run.id: run for run in RUNS}
