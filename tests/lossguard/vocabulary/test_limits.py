from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard import ConfigurationError, Limits, Order, OrderKind
from lossguard.vocabulary.limits import BY_STRICTNESS, limits_in
from lossguard.vocabulary.states import OrderMode, Refusal
from tests.lossguard.scripted import new_order, rollback

LIMITS = st.builds(
    Limits,
    mode=st.sampled_from(OrderMode),
    max_depth=st.none() | st.integers(0, 50),
    max_skip=st.none() | st.integers(0, 50),
    rollbacks_per_day=st.none() | st.integers(0, 3),
    not_after=st.none() | st.floats(0, 1),
    allow_lr_scale=st.booleans(),
)
ORDERS = st.builds(
    rollback,
    rewind_to=st.integers(0, 100),
    skip_from=st.just(0),
    skip_to=st.integers(0, 60),
    lr_scale=st.none() | st.just(0.5),
    approved_by=st.none() | st.just("ada"),
)
AT = st.fixed_dictionaries({"step": st.integers(0, 100), "until": st.just(100), "num_rollbacks": st.integers(0, 4)})


def refused(limits: Limits, order: Order, step: int = 100, until: int | None = 100, num_rollbacks: int = 0) -> str:
    found = limits.refusal(order, step=step, until=until, num_rollbacks=num_rollbacks)
    assert found is not None
    return f"{found[0]}: {found[1]}"


def test_without_limits_every_order_is_carried_out() -> None:
    order = rollback(rewind_to=0, skip_from=0, skip_to=10**9, lr_scale=0.1)
    assert Limits().refusal(order, step=10**6, until=None, num_rollbacks=99) is None
    assert Limits().to_text() == ""


@pytest.mark.parametrize(
    ("limits", "order", "why"),
    [
        ("max_depth=40", {"rewind_to": 59}, "limits: it discards 41 steps, from 59 to 100, and max_depth=40"),
        ("max_skip=4", {"skip_from": 3, "skip_to": 8}, "limits: it skips 5 batches, and max_skip=4"),
        (
            "allow_lr_scale=false",
            {"lr_scale": 0.5},
            "limits: it multiplies the learning rate by 0.5, and allow_lr_scale=false",
        ),
        ("not_after=0.9", {}, "limits: step 100 lies after 0.9 of the run's 100 steps (not_after=0.9)"),
        ("mode=approve", {}, "approval: no person has approved it (mode=approve)"),
        ("mode=observe", {"approved_by": "ada"}, "observes: the trainer carries out no orders (mode=observe)"),
    ],
)
def test_an_order_beyond_a_limit_is_refused_with_the_figures(limits: str, order: dict[str, Any], why: str) -> None:
    assert refused(Limits.parse(limits), rollback(**order)) == why


def test_an_order_at_each_limit_is_carried_out() -> None:
    limits = Limits(mode=OrderMode.APPROVE, max_depth=40, max_skip=4, rollbacks_per_day=2, not_after=1.0)
    order = rollback(rewind_to=60, skip_from=3, skip_to=7, lr_scale=0.5, approved_by="ada")
    assert limits.refusal(order, step=100, until=100, num_rollbacks=1) is None
    assert refused(limits, order, num_rollbacks=2) == ("limits: 2 rollbacks within 24 hours, and rollbacks_per_day=2")


def test_a_fraction_of_a_run_of_unknown_length_permits_nothing() -> None:
    assert refused(Limits(not_after=0.9), rollback(), step=1, until=None) == (
        "limits: not_after=0.9 cannot be checked: tell the run how many steps it has (total_steps)"
    )


def test_a_hold_is_no_rollback_and_a_release_is_never_refused() -> None:
    hold, release = (new_order(kind) for kind in (OrderKind.HOLD, OrderKind.RELEASE))
    strict = Limits(max_depth=0, rollbacks_per_day=0, not_after=0.0)
    assert strict.refusal(hold, step=9, until=None, num_rollbacks=9) is None
    assert refused(Limits(mode=OrderMode.APPROVE), hold).startswith(Refusal.APPROVAL)
    assert Limits(mode=OrderMode.OBSERVE).refusal(release, step=9, until=None, num_rollbacks=0) is None


@given(one=LIMITS, other=LIMITS, order=ORDERS, at=AT)
def test_both_limits_together_refuse_what_either_refuses(one: Limits, other: Limits, order: Order, at: Any) -> None:
    either = one.refusal(order, **at) or other.refusal(order, **at)
    assert ((one & other).refusal(order, **at) is None) == (either is None)


@given(one=LIMITS, other=LIMITS)
def test_the_stricter_limits_are_never_looser_than_those_of_the_code(one: Limits, other: Limits) -> None:
    both = one & other
    assert BY_STRICTNESS.index(both.mode) >= BY_STRICTNESS.index(one.mode)
    assert both & one == both == other & one


@given(LIMITS)
def test_limits_are_read_back_from_their_text_and_from_capabilities(limits: Limits) -> None:
    assert Limits.parse(limits.to_text()) == limits
    assert limits_in(["rollback", f"limits:{limits.to_text()}"]) == limits


def test_a_file_of_limits_has_lines_and_comments() -> None:
    text = "mode = approve   # nobody is awake\n\nmax_depth=2000, allow_lr_scale=False\n"
    assert Limits.parse(text) == Limits(mode=OrderMode.APPROVE, max_depth=2000, allow_lr_scale=False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_depth", "LOSSGUARD_LIMITS: 'max_depth' must be NAME=VALUE; names: mode, max_depth, max_skip, "),
        ("depth=3", "LOSSGUARD_LIMITS: 'depth=3' must be NAME=VALUE; names: "),
        ("max_depth=-1", "LOSSGUARD_LIMITS: max_depth=-1 must be a whole number from 0, below 2**53"),
        (f"max_depth={2**53}", f"LOSSGUARD_LIMITS: max_depth={2**53} must be a whole number from 0, below 2**53"),
        ("max_depth=2.5", "LOSSGUARD_LIMITS: max_depth=2.5 must be a whole number from 0, below 2**53"),
        ("max_skip=true", "LOSSGUARD_LIMITS: max_skip=True must be a whole number from 0, below 2**53"),
        ("not_after=90", "LOSSGUARD_LIMITS: not_after=90 must be a fraction of the run, from 0 to 1"),
        ("not_after=nan", "LOSSGUARD_LIMITS: not_after=nan must be a fraction of the run, from 0 to 1"),
        ("allow_lr_scale=no", "LOSSGUARD_LIMITS: allow_lr_scale='no' must be true or false"),
        ("mode=manual", "LOSSGUARD_LIMITS: mode='manual' must be one of observe, approve, auto"),
        ("max_skip=1,max_skip=2", "LOSSGUARD_LIMITS: max_skip is given twice"),
    ],
)
def test_invalid_limits_get_one_sentence(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits.parse(text, "LOSSGUARD_LIMITS")
    assert str(caught.value).startswith(problem)


def test_limits_of_a_later_release_do_not_count() -> None:
    assert limits_in(["limits:max_loss=3"]) == Limits()
