"""The sentences of a preflight. Pure."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossguard.vocabulary.states import OrderKind
from lossguard.vocabulary.wording import abbreviated, plural

if TYPE_CHECKING:
    from monitor.detection.interventions.preflight import Known, Preflight

SILENT_SECONDS = 60.0
"""Seconds without a report after which a trainer is called silent: heartbeats come every few seconds."""
TIERS = {"memory": "in host memory", "disk": "on the disk", "remote": "at a URL"}


def asked(
    *,
    restorable: bool | None,
    step: int | None,
    answers: bool,
    is_running: bool,
    answered_ago: float | None,
    reported_ago: float,
    is_listed: bool,
    problem: str,
) -> str:
    """Say whether the checkpoint is there, who says so and when."""
    if step is None:
        return "There is no checkpoint to restore."
    named = f"The checkpoint of step {step:,}"
    if restorable is not None:
        when = f"the trainer said so {ago(answered_ago or 0.0)}"
        return f"{named} is there ({when})." if restorable else f"{named} cannot be restored ({when}): {problem}."
    listed = f"{'in' if is_listed else 'not in'} the list that the trainer last reported"
    if not is_running:
        return f"Not asked: the run has ended. {named} is {listed}."
    if reported_ago > SILENT_SECONDS:
        return f"The trainer has been silent for {duration(reported_ago)}. {named} is {listed}."
    reported = f"it last reported {ago(reported_ago)}"
    if not answers:
        return f"Not asked: this trainer's release does not answer; {reported}. {named} is {listed}."
    earlier = "" if answered_ago is None else f" since {duration(answered_ago)}"
    return f"The trainer is asked, and has not answered{earlier}; {reported}. {named} is {listed}."


def sentences(found: "Preflight", known: "Known") -> Iterator[str]:
    """Return all that a person should know, the most important first."""
    if found.refused is not None:
        yield f"The trainer would refuse it: {found.refused}."
    if known.kind != OrderKind.ROLLBACK:
        yield f"A {known.kind} restores no checkpoint and skips no batches."
        return
    yield found.asked
    yield _restore(found)
    yield _recomputed(found)
    yield _waiting(found)
    yield _skipped(found, known)
    if found.expires_seconds is not None:
        after = "" if found.expires_step is None else f", or after step {found.expires_step:,}"
        yield f"Approved now, the order expires in {duration(found.expires_seconds)}{after}."


def duration(seconds: float) -> str:
    """Return a text such as "0.4 s", "8 s", "5 min" or "2.5 h"."""
    if seconds < 1:
        return "0 s" if seconds == 0 else "under 0.01 s" if seconds < 0.01 else f"{seconds:.1g} s"
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


def ago(seconds: float) -> str:
    """Return a text such as "8 s ago"."""
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def hours(value: float, unit: str) -> str:
    """Return a text such as "0.42 GPU-hours"."""
    return f"{number_of_hours(value)} {unit.removesuffix('s') if value == 1 else unit}"


def number_of_hours(value: float) -> str:
    """Return a text such as "0.42" or "1,200"."""
    if 0 < value < 0.01:
        return "under 0.01"
    return f"{value:,.2f}" if value < 10 and value != int(value) else f"{value:,.0f}"


def _restore(found: "Preflight") -> str:
    place = "" if found.tier is None else f"It is kept {TIERS.get(found.tier, f'in {found.tier}')}. "
    if found.restore_seconds is not None:
        return f"{place}The last restore from there took {duration(found.restore_seconds)}."
    saved = "" if found.save_seconds is None else f"; a save held the loop up for {duration(found.save_seconds)}"
    return f"{place}How long a restore takes is not known: this process has not done one{saved}."


def _recomputed(found: "Preflight") -> str:
    if found.recomputed_steps is None:
        return "The run has reported no step, so its costs are not known."
    cost = "" if found.rollback_hours is None else f" ({hours(found.rollback_hours, found.unit)} with the restore)"
    return f"Rolling back discards {plural(found.recomputed_steps, 'step')}{cost}."


def _waiting(found: "Preflight") -> str:
    since = found.hours_since_onset
    spent = "" if since is None else f" The steps since the onset have cost {hours(since, found.unit)}."
    each = f"each hour of waiting adds {hours(found.hours_per_hour, found.unit)}"
    return f"If it is rolled back in the end, {each}.{spent}"


def _skipped(found: "Preflight", known: "Known") -> str:
    if not found.skipped_batches or known.skip_from is None or known.skip_to is None:
        return "No batches are skipped."
    tokens = "" if found.skipped_tokens is None else f", about {abbreviated(found.skipped_tokens)} tokens"
    count = f"{plural(found.skipped_batches, 'batch is', 'batches are')} skipped"
    first, last = known.skip_from, known.skip_to - 1
    return f"{count}: {first:,}{tokens}." if first == last else f"{count}: {first:,} to {last:,}{tokens}."
