"""Published rules compared with Lossguard on your curves: `python -m monitor backtest CURVE.csv... --compare`.

For each file: how many groups of alarms a rule raises (see `labelled_curves`), and where the first ones begin; for
Lossguard also how many incidents would have led to an action (a published rule acts on each alarm, or never). With
a labels.json in the folder of the file, also how many labelled onsets are found.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from monitor.backtesting.backtest import backtest_rows, read_curve
from monitor.backtesting.labelled_curves import EPISODE_GAP, LabelledCurve, score
from monitor.backtesting.published_rules import RULES, alarm_steps
from monitor.detection import DetectionSettings

MAX_STARTS = 5
"""Episodes whose first step is shown."""


def comparison(paths: Iterable[Path], settings: DetectionSettings) -> Table:
    """Raises CurveError for a file that cannot be read."""
    table = Table("file", "rule", "alarm groups", "actions", "onsets found", "first at step")
    for path in paths:
        curve = _curve(path)
        name = path.name
        for rule, alarms, actions in _alarms(curve, settings):
            starts = _starts(curve, alarms)
            found = score(curve, alarms).percent() if curve.onsets else "-"
            first = " ".join(map(str, starts[:MAX_STARTS])) + (" ..." if len(starts) > MAX_STARTS else "")
            table.add_row(name, rule, str(len(starts)), actions, found, first)
            name = ""
        table.add_section()
    return table


def _curve(path: Path) -> LabelledCurve:
    labels = path.parent / "labels.json"
    known = json.loads(labels.read_text()).get(path.stem, {}) if labels.exists() else {}
    kind, onsets, ambiguous = known.get("kind", "unlabelled"), known.get("onsets", []), known.get("ambiguous", [])
    return LabelledCurve(path.stem, read_curve(path), kind, onsets, ambiguous)


def _alarms(curve: LabelledCurve, settings: DetectionSettings) -> Iterable[tuple[str, Sequence[int], str]]:
    """Return each rule with the steps of its alarms, and the number of its actions."""
    incidents = backtest_rows(curve.rows, settings)["incidents"]
    actions = sum(incident["action"]["kind"] != "none" for incident in incidents)
    yield "Lossguard", [int(incident["detected_step"]) for incident in incidents], str(actions)
    for name, rule in RULES.items():
        yield name, alarm_steps(rule, curve.rows), "-"


def _starts(curve: LabelledCurve, alarms: Iterable[int]) -> list[int]:
    """The first step of every episode."""
    starts: list[int] = []
    last = -EPISODE_GAP
    for row in sorted(curve.row_of(step) for step in alarms):
        if row - last >= EPISODE_GAP:
            starts.append(int(curve.rows.steps[row]))
        last = row
    return starts
