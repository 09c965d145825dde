"""Published rules compared with Lossguard on your curves: `python -m monitor backtest CURVE.csv... --compare`.

For each file: how many groups of alarms a rule raises (see `labelled_curves`), and where the first ones begin; for
Lossguard also how many incidents would have led to an action (a published rule acts on each alarm, or never). With
a labels.json in the folder of the file, also how many labelled onsets are found.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from monitor.backtesting.backtest import backtest_rows
from monitor.backtesting.labelled_curves import LabelledCurve, episodes, labelled_curve, score
from monitor.backtesting.published_rules import RULES, alarm_steps
from monitor.detection import DetectionSettings

MAX_STARTS = 5
"""Episodes whose first step is shown."""


def comparison(paths: Iterable[Path], settings: DetectionSettings) -> Table:
    """Raises CurveError for a file that cannot be read."""
    table = Table("file", "rule", "alarm groups", "actions", "onsets found", "first at step")
    for path in paths:
        curve = labelled_curve(path)
        name = path.name
        for rule, alarms, actions in _alarms(curve, settings):
            starts = [int(curve.rows.steps[row]) for row, _ in episodes(curve, alarms)]
            found = score(curve, alarms).percent() if curve.onsets else "-"
            first = " ".join(map(str, starts[:MAX_STARTS])) + (" ..." if len(starts) > MAX_STARTS else "")
            table.add_row(name, rule, str(len(starts)), actions, found, first)
            name = ""
        table.add_section()
    return table


def _alarms(curve: LabelledCurve, settings: DetectionSettings) -> Iterable[tuple[str, Sequence[int], str]]:
    """Return each rule with the steps of its alarms, and the number of its actions."""
    incidents = backtest_rows(curve.rows, settings)["incidents"]
    actions = sum(incident["action"]["kind"] != "none" for incident in incidents)
    yield "Lossguard", [int(incident["detected_step"]) for incident in incidents], str(actions)
    for name, rule in RULES.items():
        yield name, alarm_steps(rule, curve.rows), "-"
