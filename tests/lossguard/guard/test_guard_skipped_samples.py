"""A skip leaves out samples in every kind of data that loops really have: faults are tied to samples."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from lossguard.torch import Batches, Drawn
from tests.lossguard.scripted import ScriptedRun, rollback
from tests.lossguard.windows import (
    BAD,
    LEFT,
    NUM,
    NUM_DRAWN,
    REWIND_TO,
    SIZE,
    WIDTH,
    DrawnByIndex,
    DrawnWindows,
    RandomWindows,
    Shuffled,
    Windows,
    get_batch,
    loader,
    train,
    window,
    with_numpy,
    with_python,
)

REPEATED: dict[str, Callable[[], Any]] = {
    "a shuffled DataLoader": loader,
    "a shuffled DataLoader with a generator": lambda: loader(generator=torch.Generator().manual_seed(1)),
    "a DataLoader of a stream": lambda: DataLoader(DrawnWindows(), batch_size=SIZE),
    "an iterable that shuffles": Shuffled,
    "a stream of samples, without a loader": DrawnWindows,
    "drawn with torch": lambda: Drawn(get_batch),
    "drawn with numpy": lambda: Drawn(with_numpy, seed=5),
    "drawn with random": lambda: Drawn(with_python),
}
WITH_WORKERS: dict[str, Callable[[], Any]] = {
    "a shuffled DataLoader": lambda: loader(num_workers=2),
    "persistent workers": lambda: loader(num_workers=2, persistent_workers=True),
    "a DataLoader of a stream": lambda: DataLoader(DrawnWindows(), batch_size=SIZE, num_workers=2),
}


def check(trained: Any) -> None:
    """No corrupted sample comes again, and what lies before the skip is repeated exactly, with the loop's numbers."""
    assert [index for index, *_ in trained.before] == list(range(LEFT))
    assert [index for index, *_ in trained.after[:3]] == [*range(REWIND_TO, BAD.start), BAD.stop]
    assert trained.after[: BAD.start - REWIND_TO] == trained.before[REWIND_TO : BAD.start]
    assert trained.bad_after == []
    assert trained.run.recorded[1][3]["compared"] is True
    assert [kind for kind, _ in trained.run.events] == []


@pytest.mark.parametrize("name", REPEATED)
def test_no_skipped_sample_is_trained_again(name: str, tmp_path: Path) -> None:
    check(train(tmp_path, REPEATED[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_WORKERS)
def test_with_workers_too_and_they_end_with_the_loop(name: str, tmp_path: Path) -> None:
    others = set(multiprocessing.active_children())
    trained = train(tmp_path, WITH_WORKERS[name])
    assert set(multiprocessing.active_children()) <= others, "the garbage collector would wait five seconds for each"
    check(trained)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [None, 0, 2])
def test_a_streaming_dataset_with_a_shuffle_buffer(workers: int | None, tmp_path: Path) -> None:
    """Of Hugging Face: by itself, in batches, and in a DataLoader."""
    datasets = pytest.importorskip("datasets")

    def stream() -> Any:
        rows = {"tokens": torch.stack([window(number) for number in range(NUM)]).tolist()}
        rows_in_order = datasets.Dataset.from_dict(rows).with_format("torch").to_iterable_dataset(num_shards=4)
        shuffled = rows_in_order.shuffle(seed=3, buffer_size=50)
        return shuffled.batch(SIZE) if workers is None else DataLoader(shuffled, batch_size=SIZE, num_workers=workers)

    check(train(tmp_path, stream, lambda batch: batch["tokens"]))


@pytest.mark.parametrize("data", [lambda: Batches(loader(), accumulate=2), lambda: Drawn(get_batch, accumulate=2)])
def test_with_micro_batches_too(data: Callable[[], Any], tmp_path: Path) -> None:
    check(train(tmp_path, data, lambda micro_batches: torch.cat(list(micro_batches))))


class WithItsOwnGenerator:
    """Batches by index that are others each time they are read."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(2)

    def __getitem__(self, index: int) -> torch.Tensor:
        return get_batch(lambda: int(torch.randint(NUM_DRAWN, (), generator=self.generator)))


def test_data_that_does_not_repeat_itself_ends_all_skips_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = train(tmp_path, WithItsOwnGenerator(), orders={30: rollback(2, rewind_to=12, skip_from=20, skip_to=25)})
    run = trained.run
    assert [event for event in run.events if event[0] == "data_not_repeated"] == [
        ("data_not_repeated", {"step": REWIND_TO, "batch_index": REWIND_TO, "rows": SIZE})
    ]
    assert not run.skips
    assert [record[0] for record in run.recorded] == ["start", "rollback", "refused"]
    assert [skip.skip_from for skip in trained.guard.ledger.skips] == [BAD.start]
    assert [message for message in caplog.messages if "skips no more" in message] == [
        f"batch {REWIND_TO} was read again with other samples: this run skips no more. "
        "batches[i] must be the same each time: see lossguard.torch.Drawn"
    ]


def test_a_run_that_is_resumed_knows_that_its_data_does_not_repeat_itself(tmp_path: Path) -> None:
    train(tmp_path, WithItsOwnGenerator(), until=20)
    again = train(
        tmp_path, WithItsOwnGenerator(), until=24, orders={3: rollback(2, rewind_to=18, skip_from=1, skip_to=2)}
    )
    assert not again.run.skips
    assert [record[:2] for record in again.run.recorded] == [("resume", 20), ("refused", 2)]


class Repeating:
    """Batch i is always the same, but after batch 20 those that were skipped come again."""

    def __getitem__(self, index: int) -> torch.Tensor:
        first = 10 * SIZE * (BAD.start + (index - 20) % 3 if index >= 20 else index)
        return torch.stack([window(first + row) for row in range(SIZE)])


def test_a_skipped_sample_that_is_trained_again_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = train(tmp_path, Repeating())
    assert trained.bad_after
    kinds = [kind for kind, _ in trained.run.events]
    assert kinds == ["skipped_sample_returned"] * 16
    assert trained.run.events[0][1] == {"step": 18, "batch_index": 21, "rows": SIZE, "order": 1}
    assert [message for message in caplog.messages if "trained again" in message] == [
        f"{SIZE} samples of batch 21 were trained again, although a rollback skipped them"
    ]


def test_samples_that_a_loader_draws_whatever_the_index_are_others_after_a_skip(tmp_path: Path) -> None:
    trained = train(tmp_path, DataLoader(RandomWindows(), batch_size=SIZE))
    seen = {number for _, numbers, _ in trained.before for number in numbers}
    assert all(number not in seen for index, numbers, _ in trained.after if index > BAD.stop for number in numbers)
    assert trained.run.events == []


class Augmented(Windows):
    """Samples that are the same each time, but for noise in all but their first token."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return window(index) + (torch.arange(WIDTH) > 0) * torch.randint(9, (WIDTH,))


def test_a_resumed_run_finds_samples_that_were_skipped_before(tmp_path: Path) -> None:
    train(tmp_path, Repeating(), until=17)  # rolled back, and ended before they come again
    again = train(tmp_path, Repeating(), until=40, run=ScriptedRun())
    assert [record[0] for record in again.run.recorded] == ["resume"]
    assert again.run.events[0] == ("skipped_sample_returned", {"step": 17, "batch_index": 20, "rows": SIZE, "order": 1})


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_augmentation_is_not_taken_for_data_that_does_not_repeat_itself(workers: int, tmp_path: Path) -> None:
    trained = train(tmp_path, DataLoader(Augmented(), batch_size=SIZE, shuffle=True, num_workers=workers))
    assert [numbers for _, numbers, _ in trained.after[:2]] == [numbers for _, numbers, _ in trained.before[8:10]]
    assert (trained.bad_after, trained.run.events, trained.run.skips) == ([], [], True)


@pytest.mark.parametrize("data", [range(1000), DrawnByIndex()], ids=["range", "by index"])
def test_a_loop_that_draws_its_batches_from_its_own_random_numbers_draws_others_after_a_skip(
    data: Any, tmp_path: Path
) -> None:
    trained = train(tmp_path, data, lambda batch: get_batch() if isinstance(batch, int) else batch)
    assert trained.after[: BAD.start - REWIND_TO] == trained.before[REWIND_TO : BAD.start]
    drawn = {tuple(numbers) for _, numbers, _ in trained.before}
    assert all(tuple(numbers) not in drawn for index, numbers, _ in trained.after if index >= BAD.stop)
    assert trained.run.recorded[1][3]["compared"] is (data != range(1000))
    assert trained.run.events == []
