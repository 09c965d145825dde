"""A run in a few sentences with numbers. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from dashboard import formatting
from dashboard.data import pending
from dashboard.data.comparison import held_out
from dashboard.data.facts import Compute, Curve, RunFacts
from dashboard.report.contents import ReportContents
from db.goodput import rollback_costs
from db.goodput.rollback_costs import Rewind
from db.queries import Series
from db.run_states import SILENT, is_silent
from lossguard.vocabulary.states import IncidentState, RunState

RECENT_SHARE = 50
"""The final loss is the mean over the last 1/50 of the run."""


@dataclass(frozen=True, slots=True)
class LostCompute:
    """Total over all rewinds of a run."""

    steps: int
    steps_share: float | None
    """Share of all steps that were done."""
    tokens: float | None
    flops: float | None
    seconds: float | None
    """Seconds lost; None if no rewind has known times."""
    seconds_share: float | None
    """Share of the time since the start."""


def lost_compute(facts: RunFacts, rewinds: Sequence[Rewind], now: float) -> LostCompute:
    steps = sum(each.steps for each in rewinds)
    done = facts.progress.done + steps
    counted = [each.tokens for each in rewinds if each.tokens is not None]
    tokens = sum(counted) if counted or not rewinds else None
    seconds = rollback_costs.total_seconds(rewinds)
    total_seconds = duration(facts, now)
    return LostCompute(
        steps=steps,
        steps_share=steps / done if done else None,
        tokens=tokens,
        flops=flops(tokens, facts),
        seconds=seconds,
        seconds_share=seconds / total_seconds if seconds is not None and total_seconds > 0 else None,
    )


def with_share(text: str, share: float | None) -> str:
    return text if share is None else f"{text} ({formatting.percent(share)})"


def flops(tokens: float | None, facts: RunFacts) -> float | None:
    """6ND; None where N or D is not known."""
    return Compute(facts.compute.parameters, tokens).flops


def duration(facts: RunFacts, now: float) -> float:
    """Seconds from the start to the end, to the last report of a silent run, or to now."""
    run = facts.run
    running = run.state == RunState.RUNNING and not is_silent(run, now)
    return max(0.0, (now if running else run.finished_at or run.last_report_at) - run.started_at)


def state(facts: RunFacts, now: float) -> str:
    return SILENT if is_silent(facts.run, now) else facts.run.state


def sentences(contents: ReportContents) -> list[str]:
    facts = contents.facts
    return [
        *_progress(facts, contents.written_at, contents.zone),
        *_loss(contents),
        *facts.source.describe(),
        *incident_sentences(facts),
        lost_sentence(facts, contents.rewinds, contents.written_at),
        _pending(facts),
    ]


def _progress(facts: RunFacts, now: float, zone: tzinfo) -> list[str]:
    verbs = {
        RunState.RUNNING: "has completed",
        SILENT: "had completed",
        RunState.FINISHED: "finished after",
        RunState.INTERRUPTED: "was interrupted after",
        RunState.FAILED: "failed after",
    }
    current = state(facts, now)
    done, total, tokens = facts.progress.done, facts.progress.total, facts.newest.get("tokens")
    work = formatting.plural(done if total is None else total, "step")
    if total is not None:
        work = f"{formatting.short_count(done)} of {work}"
    if tokens:
        work += f" ({formatting.abbreviated(tokens)} tokens)"
    sentence = f"The run {verbs.get(current, f'is {current} after')} {work}"
    sentence += f" in {formatting.duration(duration(facts, now))}"
    if current == SILENT:
        sentence += f" when its reports stopped on {formatting.moment(facts.run.last_report_at, zone)}"
    started = f"It started on {formatting.moment(facts.run.started_at, zone)}"
    if current == RunState.RUNNING and facts.progress.seconds_left is not None:
        started += f" and needs about {formatting.duration(facts.progress.seconds_left)} more"
    return [f"{sentence}.", f"{started}."]


def _loss(contents: ReportContents) -> list[str]:
    curve = contents.curves.get("loss")
    if curve is None or not len(curve.live):
        return ["The run has reported no loss."]
    mean, num_steps = recent_mean(curve.live)
    newest = f"the last {formatting.plural(num_steps, 'step')}"
    parts = [f"The mean loss of {newest} is {formatting.number(mean)} nats per token"]
    if mean is None:
        parts = [f"The loss was at no time finite in {newest}"]
    measured = last_finite(contents.curves.get(held_out.HELD_OUT_LOSS))
    if measured is not None:
        parts.append(f"the held-out loss was {formatting.number(measured[1])} at step {measured[0]:,}")
    non_finite = sum(curve.live.non_finite)
    if non_finite:
        parts.append(f"the loss was not finite at {formatting.plural(non_finite, 'step')} of the live line")
    return ["; ".join(parts) + "."]


def recent_mean(series: Series) -> tuple[float | None, int]:
    """The mean of the finite values at the end of a curve, and over how many steps."""
    num_buckets = max(1, len(series) // RECENT_SHARE)
    buckets = [
        (mean, count)
        for mean, count in zip(series.mean[-num_buckets:], series.count[-num_buckets:], strict=True)
        if mean is not None
    ]
    total = sum(count for _, count in buckets)
    steps = series.last_step[-1] - series.first_step[-num_buckets] + 1
    # Weights are divided by the total first: a sum of huge losses would overflow.
    return (sum(mean * (count / total) for mean, count in buckets) if total else None), steps


def last_finite(curve: Curve | None) -> tuple[int, float] | None:
    """Step and value of the last finite value of a curve's live line."""
    live = Series() if curve is None else curve.live
    newest_first = zip(reversed(live.last_step), reversed(live.last), strict=True)
    return next(((step, value) for step, value in newest_first if value is not None), None)


def incident_sentences(facts: RunFacts) -> list[str]:
    if not facts.incidents:
        return ["There were no incidents."]
    kinds = Counter(formatting.incident_kind(each.kind) for each in facts.incidents)
    listed = [formatting.plural(count, kind) for kind, count in kinds.most_common()]
    sentence = f"{_joined(listed)}."
    if not facts.interventions:
        return [sentence, "There were no interventions."]
    acts = Counter((each.kind, each.state) for each in facts.interventions)
    named = ", ".join(f"{formatting.plural(count, kind)} {state}" for (kind, state), count in acts.most_common())
    num_skipped = sum(each.skip_to - each.skip_from for each in facts.ledger)
    skipped = f"; {formatting.plural(num_skipped, 'batch', 'batches')} skipped" if num_skipped else ""
    return [sentence, f"Interventions: {named}{skipped}."]


def lost_sentence(facts: RunFacts, rewinds: Sequence[Rewind], now: float) -> str:
    if not rewinds:
        return "No steps were discarded."
    lost = lost_compute(facts, rewinds, now)
    share = f"{formatting.plural(lost.steps, 'step')} ({formatting.percent(lost.steps_share)} of all steps)"
    parts = [share]
    if lost.tokens:
        parts.append(f"{formatting.abbreviated(lost.tokens)} tokens")
    if lost.seconds is not None:
        parts.append(f"{formatting.duration(lost.seconds)} ({formatting.percent(lost.seconds_share)} of the time)")
    return f"{formatting.plural(len(rewinds), 'rewind')} cost {_joined(parts)}."


def _joined(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _pending(facts: RunFacts) -> str:
    num_pending = len(pending.sentences(facts))
    if num_pending:
        return f"{formatting.plural(num_pending, 'decision is', 'decisions are')} pending."
    num_open = sum(each.state != IncidentState.CLOSED for each in facts.incidents)
    still_open = f"; {formatting.plural(num_open, 'incident is', 'incidents are')} still open" if num_open else ""
    ended = (
        "; the run has ended, and a person must look at it" if num_open and facts.run.state != RunState.RUNNING else ""
    )
    return f"No decision is pending{still_open}{ended}."
