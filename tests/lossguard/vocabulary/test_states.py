"""Everything that is known of a kind of incidents is in one table."""

import re
from pathlib import Path

from lossguard.vocabulary.states import KINDS, LOSS_KINDS, IncidentKind

RULES = Path(__file__).parents[3] / "deploy/prometheus/rules.yml"
ALERT = re.compile(
    r'expr: max by \(run, project\) \(lossguard_incident_onset_step\{kind="(\w+)"\}\).*?severity: (\w+)', re.DOTALL
)


def test_every_kind_has_a_row_and_an_alert_of_its_severity() -> None:
    assert set(KINDS) == set(IncidentKind)
    alerts = dict(ALERT.findall(RULES.read_text(encoding="utf-8")))
    assert alerts == {kind.value: KINDS[kind].severity for kind in IncidentKind if KINDS[kind].severity is not None}


def test_alerts_about_several_kinds_name_those_of_the_loss() -> None:
    lists = re.findall(r'kind=~"([\w|]+)"', RULES.read_text(encoding="utf-8"))
    assert [set(each.split("|")) for each in lists] == [LOSS_KINDS] * 2


def test_what_no_policy_answers_is_not_asked_to_recover() -> None:
    assert not [kind for kind, facts in KINDS.items() if facts.may_recover and not facts.is_replayed]
    assert not [kind for kind, facts in KINDS.items() if facts.needs_a_person and facts.is_replayed]
