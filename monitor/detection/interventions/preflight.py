"""Preflight of a rollback for the person who approves it: is it possible, and at what cost? Pure.

What a rollback costs is what Young (1974) counts of a failure: the restart, and the work since the checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from lossguard.vocabulary.limits import limits_in
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import ANSWERS_PREFLIGHT
from lossguard.vocabulary.states import OrderKind, RunState
from monitor.detection.interventions import preflight_text as say
from monitor.detection.interventions.restorable import restorable_steps

FRESH_SECONDS = 60.0
"""Seconds for which a trainer's answer counts: it is asked every few seconds while the rollback waits."""
WORLD_SIZES = ("ranks", "world_size", "num_processes")
"""Names under which a configuration says how many processes, and so devices, train the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Facts from the store. Times are Unix seconds of the collector's clock."""

    now: float
    kind: str
    number: int
    rewind_to: int | None
    skip_from: int | None = None
    skip_to: int | None = None
    lr_scale: float | None = None
    proposed_at: float = 0.0
    onset_step: int | None = None
    """Onset of the incident."""
    state: str = RunState.RUNNING
    capabilities: Sequence[str] = ()
    devices: Sequence[str] = ()
    """Devices of the process that reports."""
    config: Mapping[str, Any] = field(default_factory=dict)
    planned_steps: int | None = None
    restorable_steps: Sequence[int] = ()
    restorable_tiers: Sequence[Mapping[str, Any]] = ()
    last_report_at: float = 0.0
    newest_step: int | None = None
    recent_reports: Sequence[Sequence[Any]] = ()
    """(time, step, tokens, seconds a step) of the last reports; tokens and seconds may be None."""
    answered_at: float | None = None
    """Time of the answer; None: the trainer has not answered about this rollback."""
    answer: Mapping[str, Any] = field(default_factory=dict)
    """`lossguard.vocabulary.wire.Answer` as it was sent, with order_seconds and order_steps."""

    def on_terms(self, seconds: float, steps: int) -> "Known":
        """Return these facts for an order that expires after the given seconds and steps."""
        return replace(self, answer={**self.answer, "order_seconds": seconds, "order_steps": steps})


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """Facts known before an approval. None: not known, or not measured."""

    intervention: int
    """Number within the run."""
    step: int | None
    restorable: bool | None
    """True if the checkpoint of `step` can be restored now, as the trainer says; None: it has not said so lately."""
    asked: str
    """Sentence that says who knows this and when, or why nobody does."""
    tier: str | None
    restore_seconds: float | None
    """Duration of the last load from this tier."""
    save_seconds: float | None
    """Time for which the last save to this tier held the loop up."""
    recomputed_steps: int | None
    num_devices: int
    unit: str
    """Unit of the costs: "GPU-hours", or "device-hours" if no accelerator is known."""
    rollback_hours: float | None
    """Devices x hours that the restore and the recomputed steps take, up to the newest step."""
    hours_since_onset: float | None
    """Devices x hours of the steps since the onset of the incident, which a rollback discards."""
    hours_per_hour: float
    """Additional costs of each further hour of waiting."""
    skipped_batches: int
    skipped_tokens: float | None
    texts: tuple[tuple[int, str], ...]
    """Batches that are skipped, with the beginning of their text: index, text."""
    refused: str | None
    """Clause that says why the trainer would refuse the order; None if nothing speaks against it."""
    expires_seconds: float | None
    """An order that is approved now is refused so many seconds later,"""
    expires_step: int | None
    """and after this step."""
    sentences: tuple[str, ...] = ()
    """Sentences with all facts, for a person."""


def preflight(known: Known) -> Preflight:
    """Return the facts about a proposed intervention, in figures and sentences."""
    is_fresh = known.answered_at is not None and known.now - known.answered_at <= FRESH_SECONDS
    tier, load_seconds, save_seconds = _place(known, is_fresh)
    num_devices, unit = _devices(known)
    step_seconds, tokens_per_step = _step_seconds(known), _tokens_per_step(known)
    recomputed = _steps_since(known, known.rewind_to)
    skipped = 0 if known.skip_from is None or known.skip_to is None else max(0, known.skip_to - known.skip_from)
    restorable = _restorable(known, is_fresh)
    found = Preflight(
        intervention=known.number,
        step=known.rewind_to,
        restorable=restorable,
        asked=_asked(known, restorable),
        tier=tier,
        restore_seconds=load_seconds,
        save_seconds=save_seconds,
        recomputed_steps=recomputed,
        num_devices=num_devices,
        unit=unit,
        rollback_hours=_hours(recomputed, step_seconds, num_devices, load_seconds or 0.0),
        hours_since_onset=_hours(_steps_since(known, known.onset_step), step_seconds, num_devices),
        hours_per_hour=float(num_devices),
        skipped_batches=skipped,
        skipped_tokens=None if tokens_per_step is None else skipped * tokens_per_step,
        texts=tuple((each["batch"], each["text"]) for each in known.answer.get("texts") or ()),
        refused=_refused(known, is_fresh),
        expires_seconds=known.answer.get("order_seconds"),
        expires_step=_expires_step(known),
    )
    return replace(found, sentences=tuple(say.sentences(found, known)))


def _asked(known: Known, restorable: bool | None) -> str:
    return say.asked(
        restorable=restorable,
        step=known.rewind_to,
        answers=ANSWERS_PREFLIGHT in known.capabilities,
        is_running=known.state == RunState.RUNNING,
        answered_ago=None if known.answered_at is None else max(0.0, known.now - known.answered_at),
        reported_ago=max(0.0, known.now - known.last_report_at),
        is_listed=known.rewind_to in known.restorable_steps,
        problem=known.answer.get("problem") or "",
    )


def _restorable(known: Known, is_fresh: bool) -> bool | None:
    return not known.answer.get("problem") if is_fresh and known.rewind_to is not None else None


def _place(known: Known, is_fresh: bool) -> tuple[str | None, float | None, float | None]:
    """Return the checkpoint's place, and the measured seconds of a load and a save there."""
    listed = {each.step: each for each in restorable_steps(known.restorable_steps, known.restorable_tiers)}
    reported = listed.get(known.rewind_to) if known.rewind_to is not None else None
    tier = known.answer.get("tier") if is_fresh else None if reported is None else reported.tier
    times = next((each for each in known.restorable_tiers if each.get("tier") == tier), {})
    return tier, times.get("load_seconds"), times.get("save_seconds")


def _step_seconds(known: Known) -> float | None:
    found = [each[3] for each in known.recent_reports if len(each) > 3 and each[3] is not None]
    return median(found) if found else None


def _tokens_per_step(known: Known) -> float | None:
    """Return the increase of the token counter per step."""
    found = [(each[1], each[2]) for each in known.recent_reports if len(each) > 2 and each[2] is not None]
    if len(found) < 2 or found[-1][0] <= found[0][0] or found[-1][1] < found[0][1]:
        return None
    rate: float = (found[-1][1] - found[0][1]) / (found[-1][0] - found[0][0])
    return rate


def _devices(known: Known) -> tuple[int, str]:
    """Return the number of devices that train the run, at least that of its processes, and the unit of the costs."""
    sizes = [known.config.get(name) for name in WORLD_SIZES]
    processes = [size for size in sizes if type(size) is int and 0 < size < 1_000_000]
    is_gpu = any(word in each.lower() for each in known.devices for word in ("cuda", "nvidia", "amd instinct", "gpu"))
    return max([len(known.devices), *processes, 1]), "GPU-hours" if is_gpu else "device-hours"


def _steps_since(known: Known, step: int | None) -> int | None:
    if step is None or known.newest_step is None:
        return None
    return max(0, known.newest_step + 1 - step)


def _hours(steps: int | None, step_seconds: float | None, num_devices: int, more: float = 0.0) -> float | None:
    """Devices x hours of these steps, and of `more` seconds."""
    if steps is None or step_seconds is None:
        return None
    return (steps * step_seconds + more) * num_devices / 3600


def _expires_step(known: Known) -> int | None:
    steps = known.answer.get("order_steps")
    return None if steps is None or known.newest_step is None else known.newest_step + steps


def _refused(known: Known, is_fresh: bool) -> str | None:
    """The trainer knows best, because it counts its rollbacks; else what it has said of its limits decides."""
    if is_fresh:
        return known.answer.get("refused") or None
    if known.kind != OrderKind.ROLLBACK or known.newest_step is None:
        return None
    order = Order(
        id=0,
        key="",
        kind=OrderKind.ROLLBACK,
        rewind_to=known.rewind_to,
        skip_from=known.skip_from,
        skip_to=known.skip_to,
        lr_scale=known.lr_scale,
        approved_by="a person",
    )
    step, until = known.newest_step + 1, known.planned_steps
    refused = limits_in(known.capabilities).refusal(order, step=step, until=until, num_rollbacks=0)
    return None if refused is None else refused[1]
