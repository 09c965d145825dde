"""How good is the detection? Prints Markdown tables; `--write` puts them into docs/detection.md.

python -m benchmarks.detection                          curves of ../shared/curves, suites, calibration, speed
python -m benchmarks.detection --compare                the published rules beside ours
python -m benchmarks.detection --curves FOLDER          other curves, with a labels.json
python -m benchmarks.detection --seeds 5                quicker suites
python -m benchmarks.detection --leave-one-out          only that table: figures chosen on all curves but one
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import messy
from benchmarks.harness import ROOT, heading
from benchmarks.leave_one_out import Outcome, judge, leave_one_out
from benchmarks.suites import (
    FAULT,
    RISE_STEP,
    RISES,
    ROWS,
    SUITES,
    WANDERING,
    RiseSuite,
    Run,
    Suite,
    WanderingSuite,
)  # fmt: skip
from monitor.backtesting.backtest import backtest_rows
from monitor.backtesting.labelled_curves import LabelledCurve, Score, our_alarms, read_folder, score, total
from monitor.backtesting.published_rules import RULES, alarm_steps
from monitor.detection import DetectionEngine, DetectionSettings, Rows
from monitor.detection.rows import Floats

DOCUMENT = ROOT / "docs" / "detection.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NOISES = (0.02, 0.06)
PER_10K = ("false alarms per 10k clean rows", "false actions per 10k clean rows")
TARGET_RATES = (0.3, 0.5, 1.0, 2.0, 4.0, 8.0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description="How good is the detection?")
    parser.add_argument(
        "--curves", type=Path, default=ROOT.parent / "shared" / "curves", help="folder with labels.json"
    )
    parser.add_argument("--compare", action="store_true", help="also the published rules")
    parser.add_argument("--seeds", type=int, default=20, help="runs of each synthetic suite")
    parser.add_argument("--leave-one-out", action="store_true", help="only that table")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/detection.md")
    options = parser.parse_args(arguments)
    if options.leave_one_out:
        print(heading("Chosen on all curves but one", "setting", "recall", *PER_10K))
        print("\n".join(by_left_out(read_folder(options.curves))))
        return
    lines: list[str] = []
    for line in report(options.curves, options.compare, options.seeds):
        print(line, flush=True)
        lines.append(line)
    if options.write:
        write("\n".join(lines))


def write(tables: str) -> None:
    head, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(f"{head}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}")


def report(folder: Path, compare: bool, seeds: int) -> Iterator[str]:
    if (folder / "labels.json").exists():
        curves = read_folder(folder)
        yield from by_curve(curves)
        yield heading(
            "The same curves with other settings, and published rules on them", "setting or rule", "recall", *PER_10K
        )
        yield from by_target_rate(curves)
        yield from by_left_out(curves)
        if compare:
            yield from by_rule(curves)
    else:
        print(f"no labels.json in {folder}: the tables of curves are left out", file=sys.stderr)
    yield from by_suite(seeds)
    yield from on_wandering(seeds)
    yield from on_rises(seeds)
    yield from messy.tables(min(seeds, messy.SEEDS))
    yield from on_noise()
    yield from speed()


def by_curve(curves: list[LabelledCurve]) -> Iterator[str]:
    """A clean curve without an incident has no line of its own."""
    columns = ("curve", "kind", "rows", "onsets found", "false alarms", "false actions", "median delay in rows")
    yield heading("Labelled curves", *columns)
    all_actions, quiet = 0, list[LabelledCurve]()
    for curve in curves:
        incidents = backtest_rows(curve.rows)["incidents"]
        alarms = [int(incident["detected_step"]) for incident in incidents]
        one = score(curve, alarms)
        actions = num_actions(incidents) if curve.kind == "clean" else 0
        all_actions += actions
        if curve.kind == "clean" and not one.false and not actions:
            quiet.append(curve)
            continue
        false = f"{one.false} | {actions}" if curve.kind == "clean" else " | "
        late = [curve.row_of(a) - curve.row_of(o) for o in curve.onsets for a in alarms]
        late = [rows for rows in late if -2 <= rows <= 12]
        delay = f"{np.median(late):g}" if late else ""
        yield f"| {curve.name} | {curve.kind} | {len(curve.rows)} | {one.found}/{one.onsets} | {false} | {delay} |"
    yield f"| the other {len(quiet)} | clean | {sum(len(curve.rows) for curve in quiet)} | 0/0 | 0 | 0 | |"
    for which in ("detected_step", "onset_step"):
        whole = total(curves, lambda curve, which=which: our_alarms(curve, which=which))  # type: ignore[misc]
        rate = f"{all_actions}: {1e4 * all_actions / max(whole.rows, 1):.2f} per 10k"
        yield f"| **all, by {which}** | | {whole.rows} clean | {cells(whole)} | **{rate}** | |"


def cells(one: Score) -> str:
    return f"**{one.percent()}** | **{one.false}: {one.rate:.2f} per 10k**"


def by_target_rate(curves: list[LabelledCurve]) -> Iterator[str]:
    for target_rate in TARGET_RATES:
        settings = DetectionSettings(false_alarms_per_10k=target_rate)
        default = " (default)" * (settings == DetectionSettings())
        name = f"`false_alarms_per_10k` = {target_rate:g}{default}"
        yield outcome_row(name, [judge(curve, settings) for curve in curves])


def by_left_out(curves: list[LabelledCurve]) -> Iterator[str]:
    """The figures that were chosen on the other curves, on the one left out."""
    held_out, times = leave_one_out(curves)
    chosen = "; ".join(f"{rate:g}, x{least:g}, {share:g}: {count}" for (rate, least, share), count in times.items())
    yield outcome_row(f"chosen on all curves but one (times: {chosen})", [held_out])


def outcome_row(name: str, outcomes: Sequence[Outcome]) -> str:
    whole = reduce(Outcome.plus, outcomes)
    return f"| {name} | {whole.score.percent()} | {whole.score.rate:.2f} | {whole.action_rate:.2f} |"


def by_rule(curves: list[LabelledCurve]) -> Iterator[str]:
    """A published rule acts on each of its alarms, or never acts."""
    for name, rule in RULES.items():
        one = total(curves, lambda curve, rule=rule: alarm_steps(rule, curve.rows))  # type: ignore[misc]
        yield f"| {name} | {one.percent()} | {one.rate:.2f} | |"


def by_suite(seeds: int) -> Iterator[str]:
    """Suites in which nothing is wrong share a line."""
    columns = ("suite", "found", "false incidents", "false actions", "delay: median, most", "right action")
    yield heading(f"Synthetic suites, {seeds} runs each with noise of 0.02 and of 0.06 nats", *columns)
    healthy = [suite for suite in SUITES if not suite.found]
    for name, suites in [(suite.name, [suite]) for suite in SUITES if suite.found] + [("nothing wrong", healthy)]:
        runs = [(suite, noise, seed) for suite in suites for noise in NOISES for seed in range(seeds)]
        yield suite_row(f"{name}, {len(suites)} suites" if len(suites) > 1 else name, runs)


def suite_row(name: str, runs: Sequence[tuple[Suite, float, int]]) -> str:
    delays, false, false_actions, right = [], 0, 0, 0
    for suite, noise, seed in runs:
        run = Run.healthy(seed, noise)
        suite.inject(run)
        incidents = backtest_rows(run.rows(), declared=run.declared)["incidents"]
        due = [i for i in incidents if suite.found and i["detected_step"] >= FAULT - 5]
        false += len(incidents) - len(due)
        delays += [i["detected_step"] - FAULT for i in due[:1] if i["detected_step"] <= FAULT + suite.within]
        actions = [i["action"]["kind"] for i in incidents if i["action"]["kind"] != "none"]
        right += (actions[0] if actions else "none") in suite.actions
        false_actions += num_actions([i for i in incidents if "rollback" not in suite.actions or i not in due])
    found = f"{len(delays)}/{len(runs)}" if runs[0][0].found else ""
    delay = f"{np.median(delays):g}, {max(delays)}" if delays else ""
    return f"| {name} | {found} | {false} | {false_actions} | {delay} | {right}/{len(runs)} |"


def num_actions(incidents: Sequence[dict[str, Any]]) -> int:
    """Of these incidents, those about which something would have been done."""
    return sum(incident["action"]["kind"] != "none" for incident in incidents)


def on_wandering(seeds: int) -> Iterator[str]:
    """A suite without an incident has no line of its own."""
    yield heading(
        f"Healthy losses whose level wanders, {seeds} runs of {ROWS:,} rows each",
        "suite (sizes in noises)",
        "false incidents per 10k rows",
        "false actions per 10k rows",
    )
    num_quiet = 0
    for suite in WANDERING:
        incidents = [incident for seed in range(seeds) for incident in incidents_of(suite, seed)]
        per_10k = 1e4 / ROWS / seeds
        if incidents:
            yield f"| {suite.name} | {len(incidents) * per_10k:.2f} | {num_actions(incidents) * per_10k:.2f} |"
        num_quiet += not incidents
    yield f"| the other {num_quiet} suites | 0.00 | 0.00 |"


def on_rises(seeds: int) -> Iterator[str]:
    """A rise is found while it lasts, or in as many rows again. The level is flat (first figure) or wanders."""
    yield heading(
        f"True slow rises on a level that is flat; that wanders, {seeds} runs each",
        "rise",
        "found",
        "median delay in rows",
        "median rise by then in noises",
        "actions a rise",
        "false actions before",
    )
    half = len(RISES) // 2
    for flat, wandering in zip(RISES[:half], RISES[half:], strict=True):
        pairs = zip(rise_cells(flat, seeds), rise_cells(wandering, seeds), strict=True)
        cells = " | ".join("; ".join(pair) for pair in pairs)
        yield f"| {flat.height:g} noises in {flat.rows:,} rows | {cells} |"


def rise_cells(suite: RiseSuite, seeds: int) -> list[str]:
    delays, actions, before = [], 0, 0
    for seed in range(seeds):
        incidents = incidents_of(suite, seed)
        due = [incident for incident in incidents if incident["detected_step"] >= RISE_STEP]
        delays += [i["detected_step"] - RISE_STEP for i in due[:1] if i["detected_step"] < RISE_STEP + 2 * suite.rows]
        actions += num_actions(due)
        before += num_actions([incident for incident in incidents if incident not in due])
    delay = float(np.median(delays)) if delays else np.nan
    rise = min(delay / suite.rows, 1.0) * suite.height
    return [f"{len(delays)}/{seeds}", f"{delay:g}", f"{rise:.1f}", f"{actions / seeds:.2f}", str(before)]


def incidents_of(suite: WanderingSuite | RiseSuite, seed: int) -> list[dict[str, Any]]:
    incidents: list[dict[str, Any]] = backtest_rows(Rows.of(np.arange(ROWS), loss=suite.loss(seed)))["incidents"]
    return incidents


def on_noise(rows: int = 20_000, seeds: int = 5) -> Iterator[str]:
    """Healthy losses whose noise is not normal: do the thresholds from the run's own tail keep the target?"""
    targets = (1.0, 4.0)
    columns = [f"false {what}, target {rate:g}" for rate in targets for what in ("incidents", "actions")]
    yield heading("Healthy runs with other noise, per 10k rows", "noise", *columns)
    for name, make in NOISE_KINDS.items():
        numbers = list[int]()
        for target_rate in targets:
            incidents = list[dict[str, Any]]()
            for seed in range(seeds):
                loss = 2.5 + np.exp(-np.arange(rows) / 3000) + 0.02 * make(np.random.default_rng(seed), rows)
                settings = DetectionSettings(false_alarms_per_10k=target_rate)
                incidents += backtest_rows(Rows.of(np.arange(rows), loss=loss), settings)["incidents"]
            numbers += [len(incidents), num_actions(incidents)]
        yield f"| {name} | {' | '.join(f'{1e4 * number / rows / seeds:.2f}' for number in numbers)} |"


def smoothed(random: np.random.Generator, rows: int) -> Floats:
    """An exponential moving average over 10 rows, of unit variance."""
    white, out, last = random.standard_normal(rows), np.empty(rows), 0.0
    for k in range(rows):
        out[k] = last = 0.9 * last + white[k] * np.sqrt(1 - 0.81)
    return out


NOISE_KINDS = {
    "normal": lambda random, rows: random.standard_normal(rows),
    "Student t, 3 degrees of freedom": lambda random, rows: random.standard_t(3, rows) / np.sqrt(3),
    "skewed (log-normal)": lambda random, rows: np.exp(0.7 * random.standard_normal(rows)),
    "exponential moving average": smoothed,
}


def speed(rows: int = 100_000) -> Iterator[str]:
    yield heading("Speed, one core", "what", "measured", "target")
    random, at = np.random.default_rng(0), np.arange(rows)
    loss = 2 + 3 * np.exp(-at / 3000) + 0.03 * random.standard_normal(rows)
    columns = {
        "loss": loss,
        "grad_norm": np.exp(0.1 * random.standard_normal(rows)),
        "log_z": random.normal(5, 0.05, rows),
    }
    run = Rows.of(at, **columns)
    best = min(elapsed(run, 1000) for _ in range(3))
    yield f"| rows a second, reports of 1,000 rows, loss, grad norm and log Z | {rows / best:,.0f} | 100,000 |"
    each = 1e3 * elapsed(run[:5000], 1) / 5000
    yield f"| a report of one row | {each:.2f} ms | 1 ms |"
    engine = DetectionEngine()
    engine.feed(run)
    yield f"| state as JSON | {len(json.dumps(engine.state_dict()))} bytes | 20,000 |"


def elapsed(rows: Rows, size: int) -> float:
    engine, parts = DetectionEngine(), list(rows.split(size))
    start = time.perf_counter()
    for part in parts:
        engine.feed(part)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
