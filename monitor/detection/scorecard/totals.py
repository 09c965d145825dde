"""The totals of scored runs, and the sentence that says them."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lossguard.vocabulary.states import OrderKind
from monitor.detection.scorecard.endings import BY_PERSON, NOT_NEEDED, Ending
from monitor.detection.scorecard.scored_run import ScoredRun, ScoredSite

ERROR = 0.025
"""The probability beyond each end of the interval: 95% lie between them."""
BISECTIONS = 60
NEGLIGIBLE = 1e-17


def poisson_interval(count: int) -> tuple[float, float]:
    """The exact 95% confidence interval of the mean of a Poisson variable that was seen to be `count` (Garwood 1936).

    The lower end is the mean at which so many events, or more, would have a probability of 2.5%; the upper end the one
    at which so many, or fewer, would. Raises ValueError for a negative count.
    """
    if count < 0:
        raise ValueError(f"a count must not be negative, not {count}")
    far = count + 10 * math.sqrt(count + 1) + 10
    low = 0.0 if count == 0 else _root(lambda mean: 1 - at_most(count - 1, mean) - ERROR, far)
    return low, _root(lambda mean: ERROR - at_most(count, mean), far)


def at_most(count: int, mean: float) -> float:
    """The probability that a Poisson variable of this mean is at most `count`."""
    if mean == 0:
        return 1.0
    term = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    probability = term
    for k in range(count, 0, -1):
        term *= k / mean
        probability += term
        if k < mean and term < NEGLIGIBLE * probability:
            break
    return min(probability, 1.0)


def _root(rising: Callable[[float], float], high: float) -> float:
    """Return the root of a rising function between 0 and `high`."""
    low = 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


PER_HOURS = 1000.0
"""GPU-hours that the false-action rate refers to."""
NOT_COMPARED = (Ending.IN_AUTO, Ending.OPEN, Ending.DIED)
"""Endings that show no decision of a person: nobody was there, or it is not known yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Totals as the scorecard gives them in JSON. Counts are of sites, unless they say otherwise."""

    runs: int
    incidents: int
    """Incidents at the sites."""
    sites: int
    rollbacks: int
    holds: int
    """Rollbacks and holds that the policy would have ordered, at the sites that it did not answer itself in auto."""
    acted: Mapping[Ending, int]
    """Every ending, with the sites at which the policy would have acted."""
    waited: Mapping[Ending, int]
    """Every ending, with the sites at which it would have waited."""
    false_actions: int
    """Actions at sites at which nobody acted and the loss came back by itself."""
    undecided_actions: int
    """Actions at sites whose ending is not known yet: they may turn out to be false."""
    missed: int
    """Sites at which the policy waited, and a person rolled back or the run died."""
    agreed: int
    compared: int
    """Sites at which people and policy agreed (both acted, or both waited), of those that show what people decided."""
    gpu_hours: float
    """GPU-hours of the runs whose time per step is known."""
    runs_without_gpu_hours: int
    false_actions_per_1000_gpu_hours: float | None
    """False actions in the runs whose GPU-hours are known, per PER_HOURS of these; None without known hours."""
    false_actions_interval: tuple[float, float] | None
    """Exact 95% confidence interval of that rate, if false actions are independent of each other."""
    gpu_hours_saved: float | None
    """Below 0 where acting would have cost more than it saved. None without anything to compare."""
    sites_with_hours: int
    """Sites in `gpu_hours_saved`."""
    estimated_actions: int
    """Actions whose figures are estimated."""

    @property
    def actions(self) -> int:
        return self.rollbacks + self.holds


def total(runs: Sequence[ScoredRun]) -> Totals:
    """Return the totals of these runs; every site, and so every incident, is counted once."""
    scored = [(run, each) for run in runs for each in run.sites]
    sites = [each for _, each in scored]
    actions = [each.site.action for each in sites if each.site.action is not None and each.ending is not Ending.IN_AUTO]
    hours = [run.gpu_hours for run in runs if run.gpu_hours is not None]
    gpu_hours = sum(hours)
    balances = [
        saved
        for run, each in scored
        if each.balance is not None and (saved := run.hours(each.balance.saved)) is not None
    ]
    rollbacks = sum(action.kind is OrderKind.ROLLBACK for action in actions)
    num_false = sum(is_false_action(each) for run, each in scored if run.gpu_hours is not None)
    low, high = poisson_interval(num_false)
    compared = [each for each in sites if each.ending not in NOT_COMPARED]
    return Totals(
        runs=len(runs),
        incidents=sum(len(each.site.incidents) for each in sites),
        sites=len(sites),
        rollbacks=rollbacks,
        holds=len(actions) - rollbacks,
        acted=_count(each.ending for each in sites if each.site.action is not None),
        waited=_count(each.ending for each in sites if each.site.action is None),
        false_actions=sum(map(is_false_action, sites)),
        undecided_actions=sum(each.ending is Ending.OPEN and each.site.action is not None for each in sites),
        missed=sum(map(is_missed, sites)),
        agreed=sum((each.site.action is not None) == (each.ending in BY_PERSON) for each in compared),
        compared=len(compared),
        gpu_hours=gpu_hours,
        runs_without_gpu_hours=len(runs) - len(hours),
        false_actions_per_1000_gpu_hours=PER_HOURS * num_false / gpu_hours if gpu_hours > 0 else None,
        false_actions_interval=(PER_HOURS * low / gpu_hours, PER_HOURS * high / gpu_hours) if gpu_hours > 0 else None,
        gpu_hours_saved=sum(balances) if balances else None,
        sites_with_hours=len(balances),
        estimated_actions=sum(action.is_estimated for action in actions),
    )


def is_false_action(each: ScoredSite) -> bool:
    """The policy would have acted, nobody did, and the loss came back; harm to the run is not measured."""
    return each.site.action is not None and each.ending in NOT_NEEDED


def is_missed(each: ScoredSite) -> bool:
    """The policy would have waited, and a person rolled back or the run died."""
    return each.site.action is None and each.ending in (*BY_PERSON, Ending.DIED)


def _count(endings: Iterable[Ending]) -> dict[Ending, int]:
    counts = Counter(endings)
    return {ending: counts[ending] for ending in Ending}
