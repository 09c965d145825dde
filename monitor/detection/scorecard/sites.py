"""The incidents of a run by site: what belongs to one trouble is judged once, and every incident is at one site."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lossguard.vocabulary.states import Outcome
from monitor.detection.effects import Incident, Intervention
from monitor.detection.interventions.intervention_tracker import site_end
from monitor.detection.scorecard.action import Action, action_of
from monitor.detection.settings import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An incident, the segment on which it began, and what the policy proposed to a person or did about it."""

    incident: Incident
    segment: int
    interventions: Sequence[Intervention] = ()
    """Interventions of the policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Incidents of one trouble, in order, and the first thing that the policy would have done about it."""

    incidents: tuple[Incident, ...]
    segment: int
    action: Action | None
    interventions: tuple[Intervention, ...] = ()

    @property
    def onset_step(self) -> int:
        return min(each.onset_step for each in self.incidents)

    @property
    def last(self) -> Incident:
        """The incident whose end is that of the trouble."""
        return self.incidents[-1]

    @property
    def decided_step(self) -> int:
        """Step of the policy's action; without an action, of the detection."""
        return self.incidents[0].detected_step if self.action is None else self.action.decided_step


def sites_of(found: Iterable[Found], policy: Policy, *, can_roll_back: bool) -> list[Site]:
    """The sites in the order of their first incidents.

    An incident is at the site before it, if that is on the same segment and the incident begins before the site ends.
    The site of an action ends with the last step at which further trouble counts as a recurrence; after an incident
    that did not recover, it ends a verification window later at the earliest.
    """
    sites: list[Site] = []
    for each in sorted(found, key=lambda one: one.incident.number):
        action = action_of(each.incident, each.interventions, policy, can_roll_back=can_roll_back)
        begun = Site(
            incidents=(each.incident,), segment=each.segment, action=action, interventions=tuple(each.interventions)
        )
        if sites and _is_same(sites[-1], begun, policy):
            sites[-1] = _joined(sites[-1], begun)
        else:
            sites.append(begun)
    return sites


def _is_same(before: Site, begun: Site, policy: Policy) -> bool:
    if before.segment != begun.segment:
        return False
    last, ends = before.last, [before.last.onset_step]
    if before.action is not None:
        decided = before.action.decided_step
        ends.append(site_end(before.onset_step, decided, decided + policy.verify_steps, before.incidents[0].kind))
    if last.outcome is not Outcome.RECOVERED:
        ends.append((last.detected_step if last.end_step is None else last.end_step) + policy.verify_steps)
    return begun.onset_step <= max(ends)


def _joined(before: Site, begun: Site) -> Site:
    return Site(
        incidents=before.incidents + begun.incidents,
        segment=before.segment,
        action=before.action or begun.action,
        interventions=before.interventions + begun.interventions,
    )
