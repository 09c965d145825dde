import os
from pathlib import Path
from typing import Any

import pytest

from lossguard import ConfigurationError, Limits, Order, OrderKind, Run
from lossguard.guard.limits_in_force import CLOCK_TOLERANCE, LimitsInForce
from lossguard.vocabulary.orders import sign
from lossguard.vocabulary.states import OrderMode, Refusal
from tests.lossguard.scripted import new_order, rollback

NOW = 1_800_000_000.0


class FolderRun(Run):
    """A run with a folder that remembers what its collector learns."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(id="r", directory=folder)
        self.reported: list[str] = []
        self.change: str | None = None

    def has_limits(self, limits: str) -> None:
        self.reported.append(limits)

    def outdated(self, order: Order) -> str | None:
        return self.change


def in_force(folder: Path | None, limits: Limits | None = None, **environment: str) -> LimitsInForce:
    return LimitsInForce(FolderRun(folder), limits, environment=environment, clock=lambda: NOW)


def refusal(limits: LimitsInForce, order: Order | None = None, step: int = 100) -> str:
    found = limits.refusal(order or rollback(rewind_to=90), step=step, until=1000)
    return "" if found is None else f"{found[0]}: {found[1]}"


def test_the_strictest_of_code_environment_and_file_counts(tmp_path: Path) -> None:
    limits = in_force(tmp_path, Limits(max_depth=20, max_skip=9), LOSSGUARD_LIMITS="max_depth=15,rollbacks_per_day=3")
    assert limits.now == Limits(max_depth=15, max_skip=9, rollbacks_per_day=3)
    (tmp_path / "limits").write_text("max_depth = 99\nmode = approve\n")
    limits.update()
    assert limits.now == Limits(mode=OrderMode.APPROVE, max_depth=15, max_skip=9, rollbacks_per_day=3)
    (tmp_path / "limits").unlink()
    limits.update()
    assert limits.now == Limits(max_depth=15, max_skip=9, rollbacks_per_day=3)


def test_the_collector_learns_of_each_change_once(tmp_path: Path) -> None:
    run = FolderRun(tmp_path)
    limits = LimitsInForce(run, Limits(max_depth=20), environment={})
    limits.update()
    (tmp_path / "no-orders").touch()
    limits.update()
    limits.update()
    (tmp_path / "no-orders").unlink()
    limits.update()
    assert run.reported == ["max_depth=20", "mode=observe,max_depth=20", "max_depth=20"]


def test_the_kill_file_ends_obedience_at_once_and_its_removal_brings_it_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = in_force(tmp_path)
    assert refusal(limits) == ""
    (tmp_path / "no-orders").touch()
    assert refusal(limits) == f"observes: the trainer carries out no orders: {tmp_path}/no-orders exists"
    assert refusal(limits, new_order(OrderKind.HOLD, 2)).startswith(Refusal.OBSERVES)
    (tmp_path / "no-orders").unlink()
    assert refusal(limits) == ""
    assert caplog.messages == [
        f"no order is carried out: {tmp_path}/no-orders exists",
        "orders are carried out again",
    ]


def test_observe_ends_obedience_for_the_process_whatever_the_files_say(tmp_path: Path) -> None:
    limits = in_force(tmp_path)
    limits.observe()
    assert refusal(limits) == "observes: the trainer carries out no orders: guard.observe() was called"
    assert refusal(limits, new_order(OrderKind.RELEASE, 2)) == ""


def test_a_file_that_cannot_be_understood_permits_nothing_until_it_is_mended(tmp_path: Path) -> None:
    limits = in_force(tmp_path)
    (tmp_path / "limits").write_text("max_deepness=3")
    assert "max_deepness=3" in refusal(limits)
    assert limits.stopped.startswith(f"{tmp_path}/limits: ")
    (tmp_path / "limits").write_text("max_depth=5")
    assert refusal(limits) == "limits: it discards 10 steps, from 90 to 100, and max_depth=5"
    (tmp_path / "limits").write_bytes(b"\xff\xfe")
    assert refusal(limits).startswith(Refusal.OBSERVES)


def test_a_folder_that_cannot_be_looked_at_permits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, found = in_force(tmp_path), os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path)):
            raise OSError(5, "Input/output error")
        return found(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert refusal(limits).endswith("no-orders cannot be looked at (Input/output error)")


def test_a_run_without_a_folder_has_the_limits_of_the_code() -> None:
    assert refusal(in_force(None, Limits(max_depth=5))) == (
        "limits: it discards 10 steps, from 90 to 100, and max_depth=5"
    )


def test_rollbacks_of_the_last_24_hours_count_and_older_ones_do_not(tmp_path: Path) -> None:
    limits = in_force(tmp_path, Limits(rollbacks_per_day=2))
    limits.run.history.rollback_times += [NOW - 86_401, NOW - 86_399]
    assert refusal(limits) == ""
    limits.count_rollback()
    assert refusal(limits) == "limits: 2 rollbacks within 24 hours, and rollbacks_per_day=2"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"expires_at": NOW - CLOCK_TOLERANCE + 1}, ""),
        ({"expires_at": NOW - CLOCK_TOLERANCE - 1}, "stale: it expired 301 s ago by this machine's clock: "),
        ({"expires_step": 100}, ""),
        ({"expires_step": 99}, "stale: it expired at step 99, and the run is at step 100"),
        ({"rewind_to": 100}, ""),
        ({"rewind_to": 101}, "stale: it goes back to step 101, and the run is before it, at step 100"),
    ],
)
def test_an_order_that_came_too_late_is_refused(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    found = refusal(in_force(tmp_path), rollback(**{"rewind_to": 90} | fields))
    assert found.startswith(why) if why else not found


def test_a_release_that_was_recorded_ends_no_later_hold(tmp_path: Path) -> None:
    body = {"id": 1, "key": "k1", "kind": "release", "expires_at": NOW - CLOCK_TOLERANCE - 1}
    assert refusal(in_force(tmp_path), Order.from_wire(body)).startswith("stale: it expired 301 s ago")
    assert refusal(in_force(tmp_path), Order.from_wire(body | {"expires_at": NOW})) == ""


def test_an_order_about_a_state_that_is_gone_is_refused(tmp_path: Path) -> None:
    limits = in_force(tmp_path)
    limits.run.change = "the run was rewound after it was decided"  # type: ignore[attr-defined]
    assert refusal(limits) == "stale: the run was rewound after it was decided"


def test_with_a_key_only_signed_orders_of_this_run_are_carried_out(tmp_path: Path) -> None:
    key = "k" * 16
    limits = in_force(tmp_path, LOSSGUARD_ORDER_KEY=key)
    body = {"id": 1, "key": "k1", "kind": "rollback", "rewind_to": 90}
    unsigned = Order.from_wire(body)
    signed, other = (Order.from_wire(body | {"signature": sign(unsigned.signed, run, key)}) for run in ("r", "another"))
    assert refusal(limits, signed) == ""
    assert refusal(limits, unsigned).startswith("untrusted: it is not signed")
    assert refusal(limits, other).startswith("untrusted: its signature is wrong")
    forged_release = new_order(OrderKind.RELEASE, 2)
    assert refusal(limits, forged_release).startswith("untrusted")


def test_invalid_limits_are_an_error_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="LOSSGUARD_LIMITS: max_depth=-1"):
        in_force(tmp_path, LOSSGUARD_LIMITS="max_depth=-1")
    with pytest.raises(ConfigurationError, match=r"must be lossguard\.Limits"):
        LimitsInForce(Run(id="r"), "mode=approve")  # type: ignore[arg-type]


def test_a_file_of_limits_that_is_too_long_stops_orders_instead_of_losing_its_end(tmp_path: Path) -> None:
    limits = in_force(tmp_path)
    (tmp_path / "limits").write_text("# why\n" * 3_000 + "mode=observe\n")
    assert "at most 10000 bytes" in limits.update()
    assert refusal(limits).startswith("observes")
