from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, RandomSampler

from lossguard import Guard, Order
from lossguard.guard.data import skipped_samples
from lossguard.guard.data.skipped_samples import SkippedSamples
from lossguard.torch import Batches, MicroBatches
from lossguard.vocabulary.states import SegmentReason
from tests.lossguard.guard.data.numbers import Numbers, seeded
from tests.lossguard.recorded import offline
from tests.lossguard.scripted import Memory, ScriptedRun, rollback

N = 46


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(Numbers(N), **({} if "batch_sampler" in options else {"batch_size": 4}) | options)


LOADERS: dict[str, Callable[[], Any]] = {
    "in order": loader,
    "shuffled": lambda: loader(shuffle=True),
    "shuffled, with a generator": lambda: loader(shuffle=True, generator=seeded()),
    "last batch dropped": lambda: loader(batch_size=5, shuffle=True, drop_last=True),
    "batches of one sample": lambda: loader(batch_size=1, shuffle=True),
    "samples without batches": lambda: loader(batch_size=None, shuffle=True),
    "a sampler of batches": lambda: loader(
        batch_size=None, sampler=BatchSampler(RandomSampler(range(N)), 4, drop_last=False)
    ),
    "a list of batches": lambda: loader(batch_sampler=[(np.int64(k), np.int64(k + 1)) for k in range(0, N, 2)]),
}
Trained = dict[int, tuple[int, list[int]]]
"""Step -> batch and samples of the live branch."""


def train(
    data: Any, *, until: int, orders: dict[int, Order] | None = None, checkpoints: Any = None, **options: Any
) -> tuple[Trained, ScriptedRun]:
    run = ScriptedRun(orders)
    guard = Guard(run, checkpoints=Memory([]) if checkpoints is None else checkpoints, every=1, **options)
    trained: Trained = {}
    for step, batch in guard.steps(Batches(data), until):
        assert run.batch_index is not None
        trained[step] = run.batch_index, torch.as_tensor(batch).flatten().tolist()
    return trained, run


def by_epoch(trained: Trained, length: int) -> list[list[list[int]]]:
    """The batches of each epoch."""
    epochs: list[list[list[int]]] = [[] for _ in range(1 + max(batch for batch, _ in trained.values()) // length)]
    for batch, samples in trained.values():
        epochs[batch // length].append(samples)
    return epochs


def samples_in(batches: list[list[int]]) -> set[int]:
    return {sample for batch in batches for sample in batch}


@pytest.mark.parametrize("name", LOADERS)
@given(skip_from=st.integers(2, 7), num=st.integers(1, 7))
@settings(max_examples=5, deadline=None)
def test_no_later_epoch_has_a_skipped_sample_and_every_other_sample_comes(name: str, skip_from: int, num: int) -> None:
    length = len(LOADERS[name]())
    skip_to = min(skip_from + num, length)
    torch.manual_seed(0)
    plain, _ = train(LOADERS[name](), until=length)
    torch.manual_seed(0)
    order = rollback(rewind_to=1, skip_from=skip_from, skip_to=skip_to)
    trained, _ = train(LOADERS[name](), orders={skip_from + 1: order}, until=3 * length - (skip_to - skip_from))
    skipped = samples_in([samples for batch, samples in plain.values() if skip_from <= batch < skip_to])
    assert all(plain[step] == trained[step] for step in range(skip_from))
    first, *later = by_epoch(trained, length)
    assert first == [samples for batch, samples in plain.values() if not skip_from <= batch < skip_to]
    for batches in later:
        assert len(batches) == length
        assert not samples_in(batches) & skipped
        assert len(set(range(N)) - skipped - samples_in(batches)) <= (N % 5 if name == "last batch dropped" else 0)


def skipping(data: Any, *, epochs: int = 2, **options: Any) -> list[list[list[int]]]:
    """The epochs of a run that skips batches 2 to 4 of its first one."""
    order = rollback(rewind_to=1, skip_from=2, skip_to=5)
    trained, _ = train(data, orders={4: order}, until=epochs * len(data) - 3, **options)
    return by_epoch(trained, len(data))


def sizes(batches: list[list[int]]) -> set[int]:
    return set(map(len, batches))


def test_a_batch_is_never_shorter_than_the_last_one_of_an_epoch() -> None:
    assert sizes(skipping(loader(shuffle=True, generator=seeded()))[1]) == {2, 3, 4}
    assert sizes(skipping(loader(shuffle=True, generator=seeded(), batch_size=2))[1]) == {2}


def test_batches_stay_full_where_the_last_one_is_dropped_and_where_ranks_need_as_many() -> None:
    assert sizes(skipping(loader(shuffle=True, drop_last=True))[1]) == {4}
    sampler: Any = DistributedSampler(range(48), num_replicas=2, rank=1)  # type: ignore[arg-type]
    assert sizes(skipping(DataLoader(range(48), 4, sampler=sampler))[1]) == {4}  # type: ignore[arg-type]


def test_a_batch_is_filled_from_the_beginning_of_the_epoch() -> None:
    first, second = [0, 1, 2, 3], [4, 5, 6, 7]
    assert skipping(loader(drop_last=True))[1][:6] == [first, second, first, second, first, [20, 21, 22, 23]]


def test_a_first_batch_that_would_be_empty_waits_for_the_second_one() -> None:
    skipped = SkippedSamples()
    skipped.by_range[0, 2] = 0, 1, 2
    batches = skipped.without([[2, 0], [3, 1], [4, 5]], first=7, shortest=None)
    assert list(batches) == [[3, 3], [3, 3], [4, 5]]


def test_with_once_and_in_a_stream_the_samples_come_again() -> None:
    assert samples_in(skipping(loader(shuffle=True), skip_samples="once")[1]) == set(range(N))

    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(N))

    order = rollback(rewind_to=1, skip_from=2, skip_to=5)
    trained, _ = train(DataLoader(Stream(), 4), orders={4: order}, until=21)
    assert samples_in(by_epoch(trained, 12)[1]) == set(range(N))


def test_another_word_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^skip_samples='always' must be 'run' or 'once'$"):
        Guard(ScriptedRun(), checkpoints=Memory([]), skip_samples="always")


def test_without_a_skip_the_loader_itself_is_read_and_no_sampler_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = MicroBatches(loader(shuffle=True))
    monkeypatch.setattr(SkippedSamples, "without", None)
    data.skipped.is_in_use = True
    for _ in range(30):
        next(data)
        assert data._opened is data.loader


def test_samples_are_named_without_loading_them() -> None:
    data = MicroBatches(loader(shuffle=True))
    next(data)
    data.loader.dataset.loaded.clear()
    before = torch.get_rng_state()
    assert len(data.indices(3, 6) or ()) == 12
    assert not data.loader.dataset.loaded
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("generator", [None, seeded()], ids=["the loop's", "its own"])
def test_naming_samples_changes_no_later_order(generator: Any) -> None:
    def order(*, names: bool) -> list[list[int]]:
        torch.manual_seed(0)
        data = MicroBatches(loader(shuffle=True, generator=generator and seeded()))
        seen = []
        for position in range(30):
            seen.append(next(data).tolist())
            if names and position in (1, 12, 13):
                data.indices(2, 7)
        return seen

    assert order(names=True) == order(names=False)


def test_a_skip_over_the_end_of_an_epoch_names_the_other_samples_once_that_has_begun(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    plain, _ = train(loader(shuffle=True), until=12)
    torch.manual_seed(0)
    trained, run = train(loader(shuffle=True), orders={12: rollback(rewind_to=9, skip_from=10, skip_to=14)}, until=32)
    first, second, third = by_epoch(trained, 12)
    assert (len(first), len(second), len(third)) == (10, 10, 12)
    skipped = set(range(N)) - samples_in(third)
    assert len(skipped) == 6 + 8
    assert not samples_in(second) & skipped
    assert [set(each[2]) for each in run.recorded[1][3]["samples"]] == [samples_in([plain[10][1], plain[11][1]])]
    assert caplog.messages[-1].startswith("later epochs leave out 8 skipped samples: ")


def test_a_rollback_within_a_later_epoch_comes_by_the_same_batches() -> None:
    def after(orders: dict[int, Order]) -> Trained:
        torch.manual_seed(0)
        skip = {4: rollback(1, rewind_to=1, skip_from=2, skip_to=5)}
        return train(loader(shuffle=True, generator=seeded()), orders=skip | orders, until=33)[0]

    once, again = after({}), after({18: rollback(2, rewind_to=10)})
    assert again == once
    again = after({18: rollback(2, rewind_to=10, skip_from=15, skip_to=17)})
    assert {step: again[step] for step in range(12)} == {step: once[step] for step in range(12)}
    before = samples_in([samples for batch, samples in once.values() if 12 <= batch < 15])
    skipped = samples_in([samples for batch, samples in once.values() if batch in (15, 16)]) - before
    assert len(skipped) >= 5  # one of them has filled a batch, and came before without any trouble
    assert not samples_in(by_epoch(again, 12)[2]) & skipped


def test_a_new_process_leaves_them_out_from_a_checkpoint_and_from_the_spool(tmp_path: Path) -> None:
    order, checkpoints = rollback(rewind_to=1, skip_from=2, skip_to=5), Memory([])
    generator: Any = {"shuffle": True, "generator": seeded()}
    train(loader(**generator), orders={4: order}, until=8, checkpoints=checkpoints)
    skipped = set(range(N)) - samples_in(skipping(loader(shuffle=True, generator=seeded()))[1])
    trained, run = train(loader(shuffle=True, generator=seeded()), until=21, checkpoints=checkpoints)
    assert not samples_in(by_epoch(trained, 12)[1]) & skipped
    assert run.recorded[0][0] == "resume"

    with offline(tmp_path, run_id="r") as recorded:
        samples = [[2, 5, sorted(skipped)]]
        applied = {"rewound_to": 1, "skip_from": 2, "skip_to": 5, "samples": samples}
        recorded.open_segment(1, SegmentReason.ROLLBACK, order, applied)
    with offline(tmp_path, run_id="r") as recorded:
        assert recorded.history.samples == samples
        guard = Guard(recorded, checkpoints=Memory([]), every=1)
        later = [batch.tolist() for _, batch in guard.steps(Batches(loader(shuffle=True, generator=seeded())), 21)]
    assert not samples_in(later[9:]) & skipped


def test_the_collector_gets_their_number_and_the_first_ones() -> None:
    _, run = train(loader(), orders={4: rollback(rewind_to=1, skip_from=2, skip_to=8)}, until=8)
    named = ", ".join(str(sample) for sample in range(8, 28))
    assert run.recorded[1][3]["detail"] == f"later epochs leave out 24 skipped samples: {named}, .."
    assert run.recorded[1][3]["samples"] == [[2, 8, list(range(8, 32))]]


def test_where_every_sample_was_skipped_all_come_again_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    trained, _ = train(loader(), orders={4: rollback(rewind_to=0, skip_from=0, skip_to=12)}, until=12)
    assert [samples for _, samples in trained.values()] == [list(range(k, min(k + 4, N))) for k in range(0, N, 4)]
    assert "all samples of an epoch have been skipped, so they are used again" in caplog.messages


@pytest.mark.parametrize("limit", [True, False], ids=["too many", "no index"])
def test_samples_that_cannot_be_left_out_come_again_and_it_is_said(
    limit: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pairs(Numbers):
        def __getitem__(self, index: Any) -> Any:
            return index if limit else index[0]

    sampler: Any = range(N) if limit else [(number, "a") for number in range(N)]
    if limit:
        monkeypatch.setattr(skipped_samples, "MAX_SAMPLES", 11)
    epochs = skipping(DataLoader(Pairs(N), 4, sampler=sampler))
    assert samples_in(epochs[1]) == set(range(N))
    why = "they are 12, and at most 11 are left out" if limit else "they have no index that is a number or a text"
    assert f"samples of skipped batches come again in later epochs: {why}" in caplog.messages


@pytest.mark.slow
def test_workers_that_persist_are_started_once_more_and_then_stay() -> None:
    import os

    class Processes(Numbers):
        def __getitem__(self, index: int) -> Any:
            return torch.tensor([index, os.getpid()])

    data = DataLoader(Processes(N), 4, shuffle=True, num_workers=2, persistent_workers=True)
    order = rollback(rewind_to=1, skip_from=2, skip_to=5)
    run, processes = ScriptedRun({4: order}), []
    skipped: set[int] = set()
    for _, batch in Guard(run, checkpoints=Memory([]), every=1).steps(Batches(data), 45):
        assert run.batch_index is not None
        if run.batch_index == 5:
            skipped = set(run.recorded[1][3]["samples"][0][2])
        if run.batch_index >= 12:
            assert not skipped & set(batch[:, 0].tolist())
            processes.append((run.batch_index // 12, set(batch[:, 1].tolist())))
    assert len(skipped) == 12
    assert len(set().union(*(each for _, each in processes))) == 2


def test_an_order_for_batches_that_are_skipped_already_records_and_says_their_samples_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    orders = {number: rollback(number, rewind_to=1, skip_from=2, skip_to=4) for number in (4, 8)}
    _, run = train(loader(), orders=orders, until=8)
    assert run.recorded[1][3]["samples"] == run.recorded[2][3]["samples"] == [[2, 4, list(range(8, 16))]]
    assert [message.partition(", ")[2] for message in caplog.messages] == [
        "skipping 2 batches (2-3) in each epoch (8 samples)"
    ] * 2
