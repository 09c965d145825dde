"""Recall on messy runs: the spikes that the detection finds, and what it reports and does where there is none.

python -m benchmarks.messy                              the tables of docs/detection.md
python -m benchmarks.messy --first-seed 100 --seeds 4   other seeds
python -m benchmarks.messy --every 250                  denser spikes
python -m benchmarks.messy --picture docs/pictures/messy-run.svg    one run with its incidents, and no table

A spike is found by an incident at most 12 rows after its onset. All incidents of a twin are false, and all actions.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import heading
from benchmarks.messy_runs import EVERY, HARD_RUNS, KINDS, NORMS, RISE_ROW, ROWS, MessyRun, Spike
from lossguard.vocabulary.states import IncidentKind
from monitor.detection import DetectionSettings, Incident, Policy
from monitor.detection.simulation import SegmentRows, score, simulate
from trainer.lab.plot import Axis, PlottedCurve, svg

SEEDS = 2
FIRST_SEED = 6000
"""First of the seeds on which no constant was chosen."""
PICTURE_SEED = 1000
MAX_DELAY = 12
SIZES = {"6 to 10 noises": 10.0, "10 to 18": 18.0, "18 to 30": 31.0}
LENGTHS = {"2 or 3 rows": 3, "4 to 12": 12, "13 to 40": 40}
RISES = (8.0, 12.0, 20.0)
IN_TIME = 30
"""Rows in which a rise for good is to be answered."""
IGNORED = (IncidentKind.PLATEAU, IncidentKind.STALL, IncidentKind.SLOWDOWN)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--every", type=int, default=EVERY, help="rows from spike to spike, on average")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw one run as an SVG file instead")
    options = parser.parse_args(arguments)
    if options.picture:
        options.picture.write_text(picture(MessyRun("all at once", "none", PICTURE_SEED, spikes=True, rise=12.0)))
        return
    for line in tables(options.seeds, options.first_seed, options.every, options.kinds):
        print(line, flush=True)


def tables(
    seeds: int = SEEDS, first_seed: int = FIRST_SEED, every: int = EVERY, kinds: Iterable[str] = tuple(KINDS)
) -> Iterator[str]:
    numbers = range(first_seed, first_seed + seeds)
    counts = {kind: Counter[str]() for kind in kinds}
    for kind, count in counts.items():
        for norm in NORMS:
            for seed in numbers:
                count.update(_on_spikes(MessyRun(kind, norm, seed, spikes=True, every=every)))
                count.update(_on_twin(MessyRun(kind, norm, seed)))
    yield from _by_kind(counts, seeds)
    yield from _by_size(sum(counts.values(), Counter()))
    yield from _on_rises(list(counts), numbers)


def outcome(run: MessyRun) -> list[tuple[int, Incident, int | None]]:
    """Row of the detection and of the first action, for each incident."""
    settings = DetectionSettings()
    simulation = simulate(score([SegmentRows(run.rows())], settings), settings, Policy())
    return [
        (each.detected_step // run.stride, each, None if action is None else action.decided_step // run.stride)
        for number, each in simulation.incidents.items()
        if each.kind not in IGNORED
        for action in [simulation.actions.get(number)]
    ]


def picture(run: MessyRun, start: int = 2300, end: int = 6300) -> str:
    """Draw rows of a run: the expected loss, and what became of each spike and of the rise. Return the SVG file."""
    settings, loss, rows = DetectionSettings(), run.rows().metrics["loss"], np.arange(start, end)
    scores = [part.scores["loss"] for part in score([SegmentRows(run.rows())], settings)[0].scored]
    expected, scale = (np.concatenate([getattr(each, name) for each in scores]) for name in ("expected", "scale"))
    incidents, onsets = outcome(run), [*(spike.at for spike in run.planted), RISE_ROW]
    alarms = {onset: [each for each in incidents if -3 <= each[0] - onset <= MAX_DELAY] for onset in onsets}
    true = [detected for found in alarms.values() for detected, *_ in found]
    marks = {
        "spike: left alone": [detected for detected, _, acted in incidents if acted is None and detected in true],
        "rise: rolled back": [acted for *_, acted in incidents if acted is not None],
        "spike: not found": [onset for onset, found in alarms.items() if not found],
        "false: left alone": [detected for detected, _, acted in incidents if acted is None and detected not in true],
    }
    few = rows[::5]
    curves = [PlottedCurve(name="loss", x=rows.tolist(), y=loss[rows].tolist())]
    errors = (4 * scale[few]).tolist()
    curves.append(PlottedCurve(name="expected, 4 noises", x=few.tolist(), y=expected[few].tolist(), errors=errors))
    for name, places in marks.items():
        shown = [row for row in places if start <= row < end]
        peaks = [float(loss[row - 3 : row + 4].max()) for row in shown]
        curves.append(PlottedCurve(name=name, x=shown, y=peaks, is_line=False))
    title = "A messy run: heavy tails, autocorrelation, hard batches, a level that wanders"
    return svg(title, curves, Axis(title="row"), Axis(title="loss in nats"))


def _on_twin(run: MessyRun) -> Counter[str]:
    incidents = outcome(run)
    return Counter(rows=ROWS, false=len(incidents), false_actions=sum(acted is not None for *_, acted in incidents))


def _on_spikes(run: MessyRun) -> Counter[str]:
    incidents, count = outcome(run), Counter[str]()
    for spike in run.planted:
        found = any(-3 <= detected - spike.at <= MAX_DELAY for detected, *_ in incidents)
        for what in ("spikes", _cell(spike)):
            count[what] += 1
            count[f"{what}, found"] += found
    for detected, _, acted in incidents:
        of_spike = any(spike.at - 5 <= detected <= spike.at + spike.rows + 30 for spike in run.planted)
        count["acted on"] += of_spike and acted is not None
    return count


def _cell(spike: Spike) -> str:
    size = next(name for name, limit in SIZES.items() if spike.height < limit)
    return f"{size}, {next(name for name, limit in LENGTHS.items() if spike.rows <= limit)}"


def _by_kind(counts: dict[str, Counter[str]], seeds: int) -> Iterator[str]:
    yield heading(
        f"Messy runs, {seeds * len(NORMS)} of each kind with spikes and as many without",
        "noise",
        "spikes found",
        "false incidents per 10k rows",
        "false actions per 10k rows",
        "spikes that recover, acted on",
    )
    for kind, count in counts.items():
        yield _row(kind, count)
    yield _row("**all but the last**", sum((each for kind, each in counts.items() if kind != HARD_RUNS), Counter()))
    yield _row("**all**", sum(counts.values(), Counter()))


def _row(name: str, count: Counter[str]) -> str:
    false, actions = (1e4 * count[what] / max(count["rows"], 1) for what in ("false", "false_actions"))
    return f"| {name} | {_share(count, 'spikes')} | {false:.2f} | {actions:.3f} | {count['acted on']} |"


def _share(count: Counter[str], what: str) -> str:
    found, number = count[f"{what}, found"], count[what]
    return f"{found}/{number} = {100 * found / max(number, 1):.0f}%"


def _by_size(count: Counter[str]) -> Iterator[str]:
    yield heading("Messy runs: spikes found by size and length", "size", *LENGTHS, "all")
    for size in SIZES:
        cells = {length: f"{size}, {length}" for length in LENGTHS}
        whole = Counter({"all": sum(count[each] for each in cells.values())})
        whole["all, found"] = sum(count[f"{each}, found"] for each in cells.values())
        yield f"| {size} | {' | '.join(_share(count, each) for each in cells.values())} | {_share(whole, 'all')} |"


def _on_rises(kinds: Sequence[str], seeds: range) -> Iterator[str]:
    yield heading(
        f"Messy runs whose level rises for good, {len(kinds) * len(seeds)} of each",
        "rise in noises",
        "spikes before",
        f"found in {IN_TIME} rows",
        f"acted on in {IN_TIME}",
        "in 60",
        "in 200",
    )
    for spikes in (False, True):
        for rise in RISES:
            count = Counter[str]()
            for kind in kinds:
                for seed in seeds:
                    count.update(_on_rise(MessyRun(kind, "none", seed, spikes=spikes, rise=rise)))
            what = "one in 700 rows" if spikes else "none"
            cells = " | ".join(str(count[each]) for each in ("found", "acted on in 30", "in 60", "in 200"))
            yield f"| {rise:g} | {what} | {cells} |"


def _on_rise(run: MessyRun) -> Counter[str]:
    after = [each for each in outcome(run) if each[0] >= RISE_ROW - 10]
    acted = min((decided - RISE_ROW for *_, decided in after if decided is not None), default=ROWS)
    found = any(detected <= RISE_ROW + IN_TIME for detected, *_ in after)
    within = {f"in {rows}": acted <= rows for rows in (60, 200)} | {f"acted on in {IN_TIME}": acted <= IN_TIME}
    return Counter({what: int(each) for what, each in within.items()} | {"found": int(found)})


if __name__ == "__main__":
    main()
