from typing import Any

import pytest

from tests.lossguard.launch.launching import Launching
from tests.lossguard.launch.resuming import GENERIC, SCRIPT, plain, starts, trained

pytestmark = pytest.mark.slow

OPTIONS = ("--run-id", "r", "--project", "p", *GENERIC)
SKIPS = (*OPTIONS, "--can-skip")


def order(launching: Launching, **fields: Any) -> None:
    launching.collector.order(**{"id": 1, "key": "k1", "kind": "rollback", **fields})


def segments(launching: Launching) -> list[tuple[str, int, Any]]:
    return [(each["reason"], each["fork_step"], each.get("order_key")) for each in launching.collector.segments]


def test_an_order_stops_the_command_and_starts_it_from_an_earlier_checkpoint_without_the_batches(
    launching: Launching,
) -> None:
    process = launching.script(SCRIPT, options=SKIPS)
    launching.wait_for_step(12)
    assert launching.collector.runs["r"]["capabilities"] == ["rollback"]
    order(launching, rewind_to=7, skip_from=5, skip_to=9)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert trained(launching.folder) == plain(60, (5, 9))
    assert [step for _, _, step, _ in starts(launching.folder)] == [0, 5]
    (applied,) = [each for each in launching.collector.segments if each["reason"] == "rollback"]
    assert applied["fork_step"] == 5
    print(applied, err)
