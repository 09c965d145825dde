"""What does it help to know how a source was made? Curves that are sampled, averaged and smoothed, with and without.

python -m benchmarks.sources                    curves of ../shared/curves, and synthetic spikes
python -m benchmarks.sources --curves FOLDER    other curves, with a labels.json
python -m benchmarks.sources --seeds 20         quicker synthetic spikes
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from benchmarks.rows import heading
from lossguard.sources.importing import LOOK_AHEAD
from lossguard.sources.recognition import Recognition
from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts
from monitor.backtesting.labelled_curves import MAX_DELAY, MAX_LEAD, Curve, Score, read_folder, score
from monitor.detection import DetectionEngine, Incident, IncidentChanged, InterventionChanged, Mode, Policy, Rows
from monitor.detection.simulation import CHECKPOINT_STEPS

ROOT = Path(__file__).resolve().parent.parent
MIN_ROWS = 64
"""Shorter curves are left out: nothing can be learnt from them."""
STEPS, FIRST, LENGTH = 3000, 1500, 25
"""Of a synthetic run, of the first step at which its spike may begin, and of the spike."""


@dataclass(frozen=True, slots=True)
class Source:
    """A way in which a trainer logs."""

    name: str
    log: Callable[[Rows], Rows]
    facts: Callable[[Rows], SourceFacts]
    """What is known of the rows that were logged."""


def stride(rows: Rows) -> int:
    return int(np.median(np.diff(rows.steps)))


def every(rows: Rows, count: int) -> Rows:
    """Each row of so many, the last of them."""
    at = np.arange(count - 1, len(rows), count)
    metrics = {name: column[at] for name, column in rows.metrics.items()}
    return Rows(rows.steps[at], metrics, {name: column[at] for name, column in rows.present.items()})


def mean_of(rows: Rows, count: int) -> Rows:
    """Each row of so many, with the mean loss since the one before."""
    whole = len(rows) // count * count
    means = rows.metrics["loss"][:whole].reshape(-1, count).mean(axis=1)
    thinned = every(rows[:whole], count)
    return replace(thinned, metrics={**thinned.metrics, "loss": means})


def smoothed(rows: Rows, weight: float) -> Rows:
    """The exponential moving average of the loss; a value that is not finite stays one and leaves it as it was."""
    loss, smooth = rows.metrics["loss"].copy(), np.nan
    for k, value in enumerate(loss):
        if np.isfinite(value):
            loss[k] = smooth = value if np.isnan(smooth) else weight * smooth + (1.0 - weight) * value
    return replace(rows, metrics={**rows.metrics, "loss": loss})


SOURCES = (
    Source("every step", lambda rows: rows, lambda rows: EVERY_STEP),
    Source("every 10th row", lambda rows: every(rows, 10), lambda rows: SourceFacts(stride=stride(rows))),
    Source(
        "mean of 10 rows", lambda rows: mean_of(rows, 10), lambda rows: SourceFacts(stride=stride(rows), averaged=True)
    ),
    Source("EMA 0.9", lambda rows: smoothed(rows, 0.9), lambda rows: SourceFacts(smoothing=0.9)),
    Source("EMA 0.99", lambda rows: smoothed(rows, 0.99), lambda rows: SourceFacts(smoothing=0.99)),
)


Known = Sequence[tuple[int, SourceFacts]]
"""(row, what is known from that row on)."""


def recognised(rows: Rows) -> Known:
    """What is recognised from the rows alone, when it is."""
    recognition, known = Recognition(), []
    for k, (step, loss) in enumerate(zip(rows.steps.tolist(), rows.metrics["loss"].tolist(), strict=True)):
        if recognition.observe(step, loss, {}):
            known.append((k, recognition.facts))
    return known


# "recognised": while the run trains; "recognised before": by its first rows, before they are judged, as by an import
KNOWLEDGE: dict[str, Callable[[Source, Rows], Known]] = {
    "nothing": lambda source, rows: [],
    "declared": lambda source, rows: [(0, source.facts(rows))],
    "recognised": lambda source, rows: recognised(rows),
    "recognised before": lambda source, rows: [(0, facts) for _, facts in recognised(rows[:LOOK_AHEAD])[-1:]],
}


def incidents_in(rows: Rows, known: Known) -> tuple[list[Incident], int]:
    """The incidents of a run, and about how many of them something would have been done."""
    engine = DetectionEngine(policy=Policy(mode=Mode.APPROVE))
    effects = []
    cuts = [0, *(k for k, _ in known), len(rows)]
    for (first, last), facts in zip(pairwise(cuts), [None, *(facts for _, facts in known)], strict=True):
        if facts is not None:
            engine.set_source(facts)
        for part in rows[first:last].split(1000):
            effects += engine.feed(part, restorable=range(0, int(part.steps[-1]) + 1, CHECKPOINT_STEPS))
    incidents = {each.incident.number: each.incident for each in effects if isinstance(each, IncidentChanged)}
    actions = {each.intervention.incident for each in effects if isinstance(each, InterventionChanged)}
    return list(incidents.values()), len(actions)


def on_curves(curves: Sequence[Curve]) -> Iterator[str]:
    columns = ("logged", "known", "onsets found", "false alarms per 10k clean rows", "false actions")
    yield heading("Labelled curves", *columns, "onset not after the labelled one")
    for source in SOURCES:
        logged = [replace(curve, rows=source.log(curve.rows)) for curve in curves]
        logged = [curve for curve in logged if len(curve.rows) >= MIN_ROWS]
        for name, known in KNOWLEDGE.items():
            yield curves_row(source, name, [(curve, known(source, curve.rows)) for curve in logged])


def curves_row(source: Source, name: str, curves: Sequence[tuple[Curve, Known]]) -> str:
    whole, actions, early, found = Score(), 0, 0, 0
    for curve, known in curves:
        incidents, num_actions = incidents_in(curve.rows, known)
        whole += score(curve, [incident.detected_step for incident in incidents])
        actions += num_actions if curve.kind == "clean" else 0
        for onset in curve.onsets:
            near = [one for one in incidents if is_near(curve, one, onset)]
            found += bool(near)
            early += bool(near) and near[0].onset_step <= onset
    return f"| {source.name} | {name} | {whole.percent()} | {whole.rate:.2f} | {actions} | {early}/{found} |"


def is_near(curve: Curve, incident: Incident, onset: int) -> bool:
    delay = curve.row_of(incident.detected_step) - curve.row_of(onset)
    return -MAX_LEAD <= delay <= MAX_DELAY


def on_spikes(seeds: int) -> Iterator[str]:
    columns = ("logged", "known", "found", "false incidents", "median steps from onset to detection")
    yield heading(
        f"A spike of {LENGTH} steps, 12 noises high, {seeds} runs",
        *columns,
        "onset not after the true one",
        "most late",
    )
    runs = [spiked(seed) for seed in range(seeds)]
    for source in SOURCES:
        for name, known in KNOWLEDGE.items():
            yield spikes_row(source, name, [(source.log(rows), onset) for rows, onset in runs], known)


def spiked(seed: int) -> tuple[Rows, int]:
    """A healthy run with one spike, and the step at which it begins."""
    random = np.random.default_rng(seed)
    onset, steps = FIRST + int(random.integers(0, 100)), np.arange(STEPS)
    loss = 2.2 + 1.5 * np.exp(-steps / 300) + 0.02 * random.standard_normal(STEPS)
    loss[onset : onset + LENGTH] += 12 * 0.02
    return Rows.of(steps, loss=loss), onset


def spikes_row(
    source: Source,
    name: str,
    runs: Sequence[tuple[Rows, int]],
    known: Callable[[Source, Rows], Known],
) -> str:
    delays, lags, false = [], [], 0
    for rows, onset in runs:
        incidents, _ = incidents_in(rows, known(source, rows))
        due = [one for one in incidents if onset <= one.detected_step < onset + 2 * LENGTH]
        false += len(incidents) - len(due)
        delays += [one.detected_step - onset for one in due[:1]]
        lags += [one.onset_step - onset for one in due[:1]]
    early = sum(lag <= 0 for lag in lags)
    delay, most = (f"{np.median(delays):g}", f"{max(lags)}") if lags else ("", "")
    return f"| {source.name} | {name} | {len(delays)}/{len(runs)} | {false} | {delay} | {early}/{len(lags)} | {most} |"


def on_zeros(seeds: int) -> Iterator[str]:
    """A NaN that Hugging Face Trainer logs as 0, or that is left out while the grad norm is there."""
    yield heading(f"A NaN that was filtered, {seeds} runs", "logged as", "known", "found at once", "false incidents")
    known: tuple[tuple[str, Known], ...] = (("nothing", []), ("declared", [(0, SourceFacts(nan_filtered=True))]))
    for logged in ("0", "no loss"):
        for name, facts in known:
            found = false = 0
            for seed in range(seeds):
                rows, step = filtered(seed, logged)
                incidents, _ = incidents_in(rows, facts)
                due = [one for one in incidents if one.detected_step == step]
                found, false = found + bool(due), false + len(incidents) - len(due)
            yield f"| {logged} | {name} | {found}/{seeds} | {false} |"


def filtered(seed: int, logged: str) -> tuple[Rows, int]:
    """A healthy run of means of 10 steps with one NaN that is logged as 0 or left out, and its step."""
    random, steps = np.random.default_rng(seed), np.arange(10, 10 * STEPS, 10)
    loss: list[float | None] = (2.2 + np.exp(-steps / 3000) + 0.02 * random.standard_normal(len(steps))).tolist()
    at = FIRST + int(random.integers(0, 100))
    loss[at] = 0.0 if logged == "0" else None
    norm = np.exp(0.1 * random.standard_normal(len(steps)))
    return Rows.of(steps, loss=loss, grad_norm=norm), int(steps[at])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sources", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--curves", type=Path, default=ROOT.parent / "shared" / "curves", help="with labels.json")
    parser.add_argument("--seeds", type=int, default=100, help="synthetic runs")
    options = parser.parse_args(arguments)
    if (options.curves / "labels.json").exists():
        for line in on_curves(read_folder(options.curves)):
            print(line, flush=True)
    for line in chain(on_spikes(options.seeds), on_zeros(options.seeds)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
