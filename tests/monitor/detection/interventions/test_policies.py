"""Policies by name, and what happens to one that is missing or fails."""

from typing import Any

import pytest

from lossguard.vocabulary.states import OrderKind
from monitor.detection import Policy
from monitor.detection.interventions import policies
from monitor.detection.interventions.adaptive import adaptive
from monitor.detection.interventions.palm import palm
from tests.monitor.detection.interventions.situations import attempt, batch_of, situation


class EntryPoint:
    """As an installed package declares it."""

    def __init__(self, name: str, policy: Any) -> None:
        self.name, self.policy = name, policy

    def load(self) -> Any:
        return self.policy


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Policies of other packages by name."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(policies, "entry_points", lambda group: [EntryPoint(*each) for each in found.items()])
    policies.policy_named.cache_clear()
    return found


def test_the_built_in_policies_have_names() -> None:
    assert policies.policy_named("adaptive") is adaptive
    assert policies.policy_named(Policy().name) is adaptive
    assert policies.policy_named("palm") is palm


def test_an_unknown_name_lists_those_that_can_be_chosen(installed: dict[str, Any]) -> None:
    installed["careful"] = palm
    with pytest.raises(ValueError, match="name must be one of adaptive, palm, careful, not 'bold'"):
        policies.policy_named("bold")


def test_an_installed_policy_decides(installed: dict[str, Any]) -> None:
    installed["careful"] = palm
    decision = policies.decide(Policy(name="careful"), situation(), batch_of)
    assert (decision.kind, decision.rewind_to) == (OrderKind.ROLLBACK, 4900)


def test_a_run_that_only_reports_records_what_would_be_done() -> None:
    decision = policies.decide(Policy(), situation(can_roll_back=False), batch_of)
    assert (decision.kind, decision.unavailable) == (None, OrderKind.ROLLBACK)
    assert decision.reasons == policies.decide(Policy(), situation(), batch_of).reasons


def test_a_policy_that_fails_or_is_missing_decides_nothing_and_says_so(installed: dict[str, Any]) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("by zero")

    installed["broken"] = broken
    for name, why in (("broken", "ZeroDivisionError: by zero"), ("gone", "name must be one of")):
        decision = policies.decide(Policy(name=name), situation(), batch_of)
        assert decision.kind is None
        assert why in decision.reasons[0]


@pytest.mark.parametrize("name", ["adaptive", "palm"])
def test_a_run_that_cannot_skip_is_only_rewound(name: str) -> None:
    decision = policies.decide(Policy(name=name), situation(can_skip=False), batch_of)
    assert (decision.kind, decision.skip_from, decision.skip_to) == (OrderKind.ROLLBACK, None, None)
    assert decision.rewind_to is not None
    assert "cannot leave batches out" in " ".join(decision.reasons)


def test_a_run_that_cannot_skip_goes_deeper_after_each_attempt_that_failed() -> None:
    attempts = [attempt(1, rewind_to=4950, skip_from=None, skip_to=None)]
    decision = policies.decide(Policy(), situation(can_skip=False, attempts=attempts), batch_of)
    assert decision.kind is OrderKind.ROLLBACK
    assert decision.rewind_to is not None
    assert decision.rewind_to < 4950
