from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from lossguard.guard.data import comparison
from lossguard.guard.data.comparison import Repeats, SampleComparison
from lossguard.guard.data.digests import RowDigests
from lossguard.run.ranks import NO_FINDINGS, SampleFindings
from lossguard.torch import Drawn
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.orders import Ledger, Skip

ROWS = 4
SKIP = Skip(70, 80)


@dataclass
class Data:
    """Data with passes of `length` batches."""

    repeats: Repeats
    advice: str = ""
    length: int = 10**9

    def pass_of(self, index: int) -> int:
        return index // self.length


def batch(number: int) -> torch.Tensor:
    """Batch `number`, whose samples have numbers from ROWS * number on."""
    return samples(range(ROWS * number, ROWS * (number + 1)))


def samples(numbers: Iterable[int]) -> torch.Tensor:
    return torch.tensor([[number, number + 1] for number in numbers])


def compared(
    repeats: Repeats = Repeats.ALWAYS,
    *,
    batches: Iterable[torch.Tensor] | None = None,
    length: int = 10**9,
    cursor: int = 60,
    skip: Skip = SKIP,
) -> SampleComparison:
    """After these batches of data with `length` batches a pass, the run is rolled back to `cursor`, with a skip."""
    found = SampleComparison(LogOnce())
    found.begin(Data(repeats, length=length))
    for number, each in enumerate(map(batch, range(100)) if batches is None else batches):
        found.add(number, each)
    found.skip(1, skip)
    found.restored(Ledger([skip]), cursor)
    return found


def go_on(found: SampleComparison, numbers: Iterable[int], given: Callable[[int], torch.Tensor] = batch) -> None:
    """The batches of these numbers are read."""
    for number in numbers:
        found.add(number, given(number))


def test_a_run_that_repeats_its_batches_and_leaves_out_those_of_the_skip_has_no_findings() -> None:
    found = compared()
    go_on(found, [*range(60, 70), *range(80, 200)])
    assert found.is_possible
    assert found.findings == NO_FINDINGS


def test_a_skipped_batch_that_comes_again_under_another_index_is_found() -> None:
    found = compared()
    found.add(100, batch(71))
    assert found.findings == SampleFindings(returned_batch=100, returned_rows=ROWS)


def test_few_skipped_samples_that_come_again_among_others_are_found() -> None:
    found = compared()
    for number in range(5):
        found.add(100 + number, samples([1000 + 2 * number, 1001 + 2 * number, ROWS * 70 + number, 5000 + number]))
    assert found.findings.returned_batch >= 100
    assert found.findings.returned_rows == 1


def test_samples_that_occur_more_than_once_are_not_taken_for_skipped_ones() -> None:
    """As windows that are drawn with replacement: 1 of 50 comes again, skipped or not."""
    generator = torch.Generator().manual_seed(0)

    def drawn() -> torch.Tensor:
        return samples(torch.randint(10_000, (50,), generator=generator).tolist())

    def last_ten_skipped(seen: list[torch.Tensor]) -> SampleComparison:
        return compared(batches=seen, cursor=90, skip=Skip(90, 100))

    found = last_ten_skipped([drawn() for _ in range(100)])
    go_on(found, range(100, 400), lambda _: drawn())
    assert found.findings == NO_FINDINGS
    seen = [drawn() for _ in range(100)]
    found = last_ten_skipped(seen)
    found.add(100, seen[90])
    assert found.findings.returned_rows > 25  # the others occur in kept batches, too


def test_in_later_passes_samples_that_were_trained_before_and_then_skipped_are_found() -> None:
    def given(number: int) -> torch.Tensor:
        return batch(number % 50)

    found = compared(batches=map(given, range(130)), length=50, cursor=110, skip=Skip(120, 125))
    go_on(found, [*range(110, 120), *range(125, 170)], given)
    assert found.findings == NO_FINDINGS
    go_on(found, range(170, 173), given)
    assert found.findings == SampleFindings(returned_batch=170, returned_rows=ROWS)


def test_only_samples_of_the_newest_skip_are_looked_for() -> None:
    found = compared()
    found.skip(2, Skip(90, 95))
    found.restored(Ledger([Skip(70, 80), Skip(90, 95)]), 85)
    found.add(100, batch(71))
    assert found.findings == NO_FINDINGS
    found.restored(Ledger([Skip(70, 80), Skip(90, 95)]), 85)
    found.add(100, batch(91))
    assert found.findings.returned_rows == ROWS


def test_a_sample_of_a_batch_that_was_not_skipped_is_none_of_the_skipped() -> None:
    padding = samples([7] * ROWS)
    found = compared(batches=[padding if number % 10 == 0 else batch(number) for number in range(100)])
    found.add(100, padding)
    assert found.findings == NO_FINDINGS


def test_a_batch_that_differs_when_it_is_read_again_is_found() -> None:
    found = compared()
    found.add(60, batch(60))
    found.add(61, torch.cat([batch(61)[:1], batch(161)[1:]]))
    assert found.findings == SampleFindings(differing_batch=61, differing_rows=ROWS - 1)


@pytest.mark.parametrize(
    ("repeats", "before", "after"),
    [(Repeats.ALWAYS, True, True), (Repeats.UNTIL_SKIP, True, False), (Repeats.NEVER, False, False)],
)
def test_how_long_a_batch_must_be_the_same_depends_on_the_data(repeats: Repeats, before: bool, after: bool) -> None:
    for number, is_found in ((69, before), (80, after)):
        found = compared(repeats)
        found.add(number, batch(500))
        assert (found.findings.differing_batch == number) is is_found


def test_a_new_process_looks_for_the_skipped_samples_too() -> None:
    state = compared().state_dict()
    assert (state["order"], len(state["skipped"])) == (1, 10 * ROWS)
    found = SampleComparison(LogOnce())
    found.begin(Data(Repeats.ALWAYS))
    found.load_state_dict(state)
    found.restored(Ledger([SKIP]), 62)
    found.add(62, batch(62))
    found.load_state_dict(SampleComparison(LogOnce()).state_dict())  # of an older checkpoint, after a rollback
    found.add(100, batch(71))
    assert (found.findings.returned_batch, found.order) == (100, 1)


def test_findings_are_kept_until_all_ranks_know_them() -> None:
    found = compared()
    found.add(100, batch(71))
    first = found.findings
    found.add(101, batch(72))
    found.forget(NO_FINDINGS)
    assert found.findings == first
    found.forget(SampleFindings(returned_batch=100, returned_rows=ROWS))
    assert found.findings == NO_FINDINGS
    found.add(102, batch(73))
    assert found.findings.returned_batch == 102


def test_the_micro_batches_of_a_step_are_compared_as_they_are_loaded() -> None:
    numbers = iter(range(1000))
    found = SampleComparison(LogOnce())
    found.begin(Data(Repeats.ALWAYS))
    steps = Drawn(lambda: batch(next(numbers)), accumulate=3)
    step = steps[0]
    found.add(0, step)
    assert not found.is_possible
    list(step)
    assert found.is_possible
    found.restored(Ledger(), 0)
    again = steps[0]
    found.add(0, again)
    again[0]
    assert found.findings == SampleFindings(differing_batch=0, differing_rows=ROWS)


def test_the_oldest_batches_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MAX_ROWS", 20 * ROWS)
    found = compared()
    found.add(79, batch(0))
    assert found.findings == NO_FINDINGS


def test_data_that_cannot_be_digested_is_said_once_and_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(dict[str, Any]):
        def values(self) -> Any:
            raise RuntimeError("not here")

    found = SampleComparison(LogOnce())
    for number in range(3):
        found.add(number, Broken(x=1))
    assert caplog.messages == ["samples are not compared after rollbacks: RuntimeError('not here')"]
    assert not found.is_possible


def test_digests_that_a_device_computes_are_compared_once_they_are_there() -> None:
    class Computed(RowDigests):
        is_done = False

        def is_ready(self) -> bool:
            return self.is_done

    found = compared()
    late = Computed([[ROWS * 70]])
    found._pending.append(((100, 0), late))
    found.add(101, batch(71))
    assert found.findings == NO_FINDINGS
    late.is_done = True
    found.add(102, batch(102))
    assert found.findings.returned_batch == 101


def test_batches_that_were_read_before_a_skip_and_not_since_may_differ_after_the_next_rollback() -> None:
    found = compared(Repeats.UNTIL_SKIP)
    ledger = Ledger([SKIP])
    go_on(found, range(60, 70))
    go_on(found, range(80, 85), lambda number: batch(number)[:-1])  # a later epoch leaves one out
    found.restored(ledger, 82)
    go_on(found, range(82, 90), lambda number: batch(number)[:-1])
    assert found.findings == NO_FINDINGS
    found.restored(ledger, 88)
    found.add(88, batch(88))
    assert found.findings.differing_batch == 88


def test_an_earlier_epoch_that_is_repeated_may_hold_the_samples_that_a_later_one_skips() -> None:
    def given(number: int) -> torch.Tensor:
        return batch(number if number < 50 else 99 - number)

    skip = Skip(52, 57)  # which holds the samples of batches 43 to 47
    found = compared(batches=map(given, range(70)), length=50, cursor=40, skip=skip)
    go_on(found, [*range(40, 52), *range(57, 90)], given)
    assert found.findings == NO_FINDINGS
    found.add(103, batch(45))
    assert found.findings.returned_batch == 103
