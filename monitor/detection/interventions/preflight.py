"""Preflight of a rollback for the person who approves it: is it possible, and at what cost? In figures and sentences.

What a rollback costs is what Young (1974) counts of a failure: the restart, and the work since the checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from lossguard.vocabulary.limits import limits_in
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import ANSWERS_PREFLIGHT
from lossguard.vocabulary.states import OrderKind, RunState
from lossguard.vocabulary.wording import abbreviated, plural
from monitor.detection.interventions.restorable import restorable_steps

FRESH_SECONDS = 60.0
"""Seconds for which a trainer's answer counts: it is asked every few seconds while the rollback waits."""
NUM_DEVICES = ("world_size", "ranks", "num_devices", "num_gpus", "num_processes")
"""Entries of a run's configuration that say on how many devices it trains; the first one that is there counts."""
MAX_DEVICES = 1_000_000
SILENT_SECONDS = 60.0
"""Seconds without a report after which a trainer is called silent: heartbeats come every few seconds."""
TIERS = {"memory": "in host memory", "disk": "on the disk", "remote": "at a URL"}


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

    @property
    def is_fresh(self) -> bool:
        """True if the trainer has answered lately."""
        return self.answered_at is not None and self.now - self.answered_at <= FRESH_SECONDS

    @property
    def num_skipped(self) -> int:
        return 0 if self.skip_from is None or self.skip_to is None else max(0, self.skip_to - self.skip_from)

    def steps_since(self, step: int | None) -> int | None:
        """Steps from `step` to the newest one."""
        return None if step is None or self.newest_step is None else max(0, self.newest_step + 1 - step)

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
    tier, load_seconds, save_seconds = _place(known)
    num_devices, _ = devices_of(known.config, known.devices)
    seconds = [each[3] for each in known.recent_reports if len(each) > 3 and each[3] is not None]
    step_seconds, tokens_per_step = median(seconds) if seconds else None, _tokens_per_step(known)
    is_gpu = any(word in each.lower() for each in known.devices for word in ("cuda", "nvidia", "amd instinct", "gpu"))
    recomputed, since_onset = known.steps_since(known.rewind_to), known.steps_since(known.onset_step)
    steps = known.answer.get("order_steps")
    restorable = not known.answer.get("problem") if known.is_fresh and known.rewind_to is not None else None
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
        unit="GPU-hours" if is_gpu else "device-hours",
        rollback_hours=_device_hours(recomputed, step_seconds, num_devices, load_seconds or 0.0),
        hours_since_onset=_device_hours(since_onset, step_seconds, num_devices),
        hours_per_hour=float(num_devices),
        skipped_batches=known.num_skipped,
        skipped_tokens=None if tokens_per_step is None else known.num_skipped * tokens_per_step,
        texts=tuple((each["batch"], each["text"]) for each in known.answer.get("texts") or ()),
        refused=_refused(known),
        expires_seconds=known.answer.get("order_seconds"),
        expires_step=None if steps is None or known.newest_step is None else known.newest_step + steps,
    )
    return replace(found, sentences=tuple(_sentences(found, known)))


def _place(known: Known) -> tuple[str | None, float | None, float | None]:
    """Return the checkpoint's place, and the measured seconds of a load and a save there."""
    tier = known.answer.get("tier")
    if not known.is_fresh:
        listed = restorable_steps(known.restorable_steps, known.restorable_tiers)
        tier = next((each.tier for each in listed if each.step == known.rewind_to), None)
    times = next((each for each in known.restorable_tiers if each.get("tier") == tier), {})
    return tier, times.get("load_seconds"), times.get("save_seconds")


def _tokens_per_step(known: Known) -> float | None:
    """Return the increase of the token counter per step."""
    found = [(each[1], each[2]) for each in known.recent_reports if len(each) > 2 and each[2] is not None]
    if len(found) < 2 or found[-1][0] <= found[0][0] or found[-1][1] < found[0][1]:
        return None
    rate: float = (found[-1][1] - found[0][1]) / (found[-1][0] - found[0][0])
    return rate


def devices_of(config: Mapping[str, Any], devices: Sequence[Any]) -> tuple[int, bool]:
    """(how many devices a run trains on, whether its configuration says so); otherwise the listed ones, at least 1."""
    trainer = config.get("trainer")  # as the callback of Lightning records it
    known = {**trainer, **config} if isinstance(trainer, Mapping) else config
    for name in NUM_DEVICES:
        value = known.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_DEVICES:
            return value, True
    return max(1, len(devices)), False


def _device_hours(steps: int | None, step_seconds: float | None, num_devices: int, more: float = 0.0) -> float | None:
    """Devices x hours of these steps, and of `more` seconds."""
    if steps is None or step_seconds is None:
        return None
    return (steps * step_seconds + more) * num_devices / 3600


def _refused(known: Known) -> str | None:
    """The trainer knows best, because it counts its rollbacks; else what it has said of its limits decides."""
    if known.is_fresh:
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


# Sentences


def _asked(known: Known, restorable: bool | None) -> str:
    """Say whether the checkpoint is there, who says so and when."""
    if known.rewind_to is None:
        return "There is no checkpoint to restore."
    named = f"The checkpoint of step {known.rewind_to:,}"
    answered_ago = None if known.answered_at is None else max(0.0, known.now - known.answered_at)
    if restorable is not None:
        when, problem = f"the trainer said so {_ago(answered_ago or 0.0)}", known.answer.get("problem")
        return f"{named} is there ({when})." if restorable else f"{named} cannot be restored ({when}): {problem}."
    is_listed = known.rewind_to in known.restorable_steps
    listed = f"{named} is {'in' if is_listed else 'not in'} the list that the trainer last reported."
    if known.state != RunState.RUNNING:
        return f"Not asked: the run has ended. {listed}"
    reported_ago = max(0.0, known.now - known.last_report_at)
    if reported_ago > SILENT_SECONDS:
        return f"The trainer has been silent for {duration(reported_ago)}. {listed}"
    reported = f"it last reported {_ago(reported_ago)}"
    if ANSWERS_PREFLIGHT not in known.capabilities:
        return f"Not asked: this trainer's release does not answer; {reported}. {listed}"
    earlier = "" if answered_ago is None else f" since {duration(answered_ago)}"
    return f"The trainer is asked, and has not answered{earlier}; {reported}. {listed}"


def _sentences(found: Preflight, known: Known) -> Iterator[str]:
    """Sentences that a person should know, the most important first."""
    if found.refused is not None:
        yield f"The trainer would refuse it: {found.refused}."
    if known.kind != OrderKind.ROLLBACK:
        yield f"A {known.kind} restores no checkpoint and skips no batches."
        return
    yield found.asked
    yield _restore(found)
    yield _recomputed(found)
    since = found.hours_since_onset
    spent = "" if since is None else f" The steps since the onset have cost {hours(since, found.unit)}."
    each = f"each hour of waiting adds {hours(found.hours_per_hour, found.unit)}"
    yield f"If it is rolled back in the end, {each}.{spent}"
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


def _ago(seconds: float) -> str:
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def hours(value: float, unit: str) -> str:
    """Return a text such as "0.42 GPU-hours"."""
    return f"{number_of_hours(value)} {unit.removesuffix('s') if value == 1 else unit}"


def number_of_hours(value: float) -> str:
    """Return a text such as "0.42" or "1,200"."""
    if 0 < value < 0.01:
        return "under 0.01"
    return f"{value:,.2f}" if value < 10 and value != int(value) else f"{value:,.0f}"


def _restore(found: Preflight) -> str:
    place = "" if found.tier is None else f"It is kept {TIERS.get(found.tier, f'in {found.tier}')}. "
    if found.restore_seconds is not None:
        return f"{place}The last restore from there took {duration(found.restore_seconds)}."
    saved = "" if found.save_seconds is None else f"; a save held the loop up for {duration(found.save_seconds)}"
    return f"{place}How long a restore takes is not known: this process has not done one{saved}."


def _recomputed(found: Preflight) -> str:
    if found.recomputed_steps is None:
        return "The run has reported no step, so its costs are not known."
    cost = "" if found.rollback_hours is None else f" ({hours(found.rollback_hours, found.unit)} with the restore)"
    return f"Rolling back discards {plural(found.recomputed_steps, 'step')}{cost}."


def _skipped(found: Preflight, known: Known) -> str:
    if not found.skipped_batches or known.skip_from is None or known.skip_to is None:
        return "No batches are skipped."
    tokens = "" if found.skipped_tokens is None else f", about {abbreviated(found.skipped_tokens)} tokens"
    count = f"{plural(found.skipped_batches, 'batch is', 'batches are')} skipped"
    first, last = known.skip_from, known.skip_to - 1
    return f"{count}: {first:,}{tokens}." if first == last else f"{count}: {first:,} to {last:,}{tokens}."
