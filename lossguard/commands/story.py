"""What became of a run in one sentence: "861 steps, 26.4%, 28 s lost to 6 incidents". Pure."""

from typing import Any

from lossguard.commands.readable import duration, percent
from lossguard.plurals import plural
from lossguard.states import THROUGHPUT_KINDS

LOST_TO_SPIKES = "spike"
"""The cause of that name in the goodput of a run."""


def progress_of(run: dict[str, Any]) -> float | None:
    """The share of the planned steps that is done; None where nobody said how many are planned."""
    newest, total = run["newest_step"], run["total_steps"]
    return min(1.0, (newest["step"] + 1) / total) if newest and total else None


def story(run: dict[str, Any], goodput: dict[str, Any], incidents: list[dict[str, Any]]) -> str:
    """The sentence, from the answers of the collector about the run."""
    newest, progress = run["newest_step"], progress_of(run)
    if newest is None:
        return "No step has been reported yet."
    parts = [plural(newest["step"] + 1, "step")]
    parts += [] if progress is None else [percent(progress)]
    lost = goodput["seconds"].get(LOST_TO_SPIKES, 0.0)
    spikes = [each for each in incidents if each["kind"] not in THROUGHPUT_KINDS]
    if spikes:
        parts.append(f"{'under 1 s' if 0 < lost < 1 else duration(lost)} lost to {plural(len(spikes), 'incident')}")
    else:
        parts.append("no incident")
    if goodput["goodput"] is not None:
        parts.append(f"goodput {percent(goodput['goodput'])}")
    return ", ".join(parts) + "."
