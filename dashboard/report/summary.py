"""A run in a few sentences with numbers. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from dashboard import clock, formatting
from dashboard.data import compute, held_out, rollback_costs
from dashboard.data.facts import Curve, RunFacts
from dashboard.data.progress import is_silent
from dashboard.report.contents import ReportContents
from db.interventions import is_holding, is_proposed
from db.models import Intervention
from db.queries import Series

RECENT = 50
"""The last loss is the mean of this part of the run: 1/50."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What was computed and left, in all."""

    steps: int
    steps_share: float | None
    """Of all steps that were done."""
    tokens: float | None
    flops: float | None
    seconds: float | None
    """None where it is not known when the run was where it went back to."""
    seconds_share: float | None
    """Of the time since the start."""


def lost_in_all(story: ReportContents) -> Lost:
    facts, ways = story.facts, story.lost
    steps = sum(way.steps for way in ways)
    done = facts.progress.done + steps
    told = [way.tokens for way in ways if way.tokens is not None]
    tokens = sum(told) if told or not ways else None
    seconds = rollback_costs.total_seconds(ways)
    whole = seconds_of(facts, story.written_at)
    return Lost(
        steps=steps,
        steps_share=steps / done if done else None,
        tokens=tokens,
        flops=flops(tokens, facts),
        seconds=seconds,
        seconds_share=seconds / whole if seconds is not None and whole > 0 else None,
    )


def with_share(told: str, share: float | None) -> str:
    return told if share is None else f"{told} ({formatting.percent(share)})"


def flops(tokens: float | None, facts: RunFacts) -> float | None:
    """6ND; None where the run does not tell N or D."""
    each = compute.flops_per_token(facts.run.config)
    return None if each is None or tokens is None else each * tokens


def seconds_of(facts: RunFacts, now: float) -> float:
    """From the start to the end, or to now while it runs."""
    run = facts.run
    running = run.state == "running" and not is_silent(run, now)
    return max(0.0, (now if running else run.finished_at or run.last_report_at) - run.started_at)


def sentences(story: ReportContents) -> list[str]:
    facts = story.facts
    return [
        _course(facts, story.written_at, story.zone),
        *_loss(story),
        *_trouble(facts),
        *_lost(story),
        _next(facts),
    ]


def state(facts: RunFacts, now: float) -> str:
    return "silent" if is_silent(facts.run, now) else facts.run.state


def _course(facts: RunFacts, now: float, zone: tzinfo) -> str:
    run, done, total = facts.run, facts.progress.done, facts.progress.total
    verb = {"running": "is running, and has done", "silent": "is silent. It had done"}.get(
        state(facts, now), f"is {run.state} after"
    )
    steps = formatting.plural(done, "step") if total is None else f"{done:,} of {formatting.plural(total, 'step')}"
    tokens = facts.newest.get("tokens")
    seen = f" and {formatting.abbreviated(tokens)} tokens" if tokens else ""
    sentence = f"The run {verb} {steps}{seen} in {formatting.duration(seconds_of(facts, now))}"
    sentence += f", begun {clock.moment(run.started_at, zone)}"
    if state(facts, now) == "silent":
        sentence += f"; nothing was heard of it since {clock.moment(run.last_report_at, zone)}"
    elif run.state == "running" and facts.progress.seconds_left is not None:
        sentence += f"; about {formatting.duration(facts.progress.seconds_left)} are left"
    return sentence + "."


def _loss(story: ReportContents) -> list[str]:
    curve = story.curves.get("loss")
    if curve is None or not len(curve.live):
        return ["No loss was reported."]
    live = curve.live
    mean, steps = recent(live)
    told = [
        f"The loss is {formatting.number(mean)} nats per token, the mean of the last {formatting.plural(steps, 'step')}"
    ]
    last = last_of(story.curves.get(held_out.HELD_OUT_LOSS))
    if last is not None:
        told.append(f"on held-out text it was {formatting.number(last[1])} at step {last[0]:,}")
    broken = sum(live.non_finite)
    if broken:
        told.append(f"it was not finite at {formatting.plural(broken, 'step')} of the live line")
    return ["; ".join(told) + "."]


def recent(series: Series) -> tuple[float | None, int]:
    """The mean of the finite values at the end of a curve, and over how many steps."""
    few = max(1, len(series) // RECENT)
    buckets = [
        (mean, count) for mean, count in zip(series.mean[-few:], series.count[-few:], strict=True) if mean is not None
    ]
    total = sum(count for _, count in buckets)
    steps = series.last_step[-1] - series.first_step[-few] + 1
    return (sum(mean * count for mean, count in buckets) / total if total else None), steps


def last_of(curve: Curve | None) -> tuple[int, float] | None:
    """The last finite value of a curve and its step."""
    live = Series() if curve is None else curve.live
    told = zip(reversed(live.last_step), reversed(live.last), strict=True)
    return next(((step, value) for step, value in told if value is not None), None)


def _trouble(facts: RunFacts) -> list[str]:
    if not facts.incidents:
        return ["There was no incident."]
    kinds = Counter(formatting.incident_kind(each.kind) for each in facts.incidents)
    told = ", ".join(formatting.plural(count, kind) for kind, count in kinds.most_common())
    first = (
        f"There {'was' if len(facts.incidents) == 1 else 'were'} {formatting.plural(len(facts.incidents), 'incident')}"
    )
    return [
        f"{first}: {told}.",
        _deeds(facts.interventions, sum(each.skip_to - each.skip_from for each in facts.ledger)),
    ]


def _deeds(interventions: Sequence[Intervention], skipped: int) -> str:
    if not interventions:
        return "No intervention was made."
    kinds = Counter((each.kind, each.state) for each in interventions)
    told = ", ".join(f"{formatting.plural(count, kind)} {done}" for (kind, done), count in kinds.most_common())
    batches = f"; {formatting.plural(skipped, 'batch', 'batches')} were skipped" if skipped else ""
    return f"What was done: {told}{batches}."


def _lost(story: ReportContents) -> list[str]:
    if not story.lost:
        return ["Nothing that was computed was given up."]
    lost = lost_in_all(story)
    tokens = f", {formatting.abbreviated(lost.tokens)} tokens" if lost.tokens else ""
    time = (
        ""
        if lost.seconds is None
        else f" and {formatting.duration(lost.seconds)} ({formatting.percent(lost.seconds_share)} of the time)"
    )
    return [
        f"{formatting.plural(lost.steps, 'step')} ({formatting.percent(lost.steps_share)} of those done){tokens}{time} "
        f"were given up by going back {_times(len(story.lost))}."
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def waiting(facts: RunFacts) -> list[str]:
    """What a person has to decide."""
    told = [
        f"Intervention {each.number} waits for approval. {formatting.intervention_sentence(each, None)}"
        for each in facts.interventions
        if is_proposed(each)
    ]
    if any(map(is_holding, facts.interventions)):
        told.append("The run is on hold.")
    return told


def _next(facts: RunFacts) -> str:
    several = len(waiting(facts))
    if several:
        return "One thing waits for a person." if several == 1 else f"{several} things wait for a person."
    going_on = sum(each.state != "closed" for each in facts.incidents)
    left = f"; {formatting.plural(going_on, 'incident')} not over yet" if going_on else ""
    return f"Nothing waits for a person{left}."
