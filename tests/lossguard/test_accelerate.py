"""One process. tests/ranks/test_accelerated.py has several."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import ProjectConfiguration
from torch.utils.data import DataLoader, IterableDataset

from lossguard.accelerate import AcceleratorCheckpoints, check_strategy
from lossguard.torch import Batches, Checkpoints, MicroBatches
from lossguard.vocabulary.errors import CheckpointError, CheckpointMismatch, ConfigurationError
from tests.lossguard.accelerated import Options, Training, train_guarded, train_plain

SEEDABLE = {"use_seedable_sampler": True}
SHORT: dict[str, Any] = {"steps": 24, "rows": 60}


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """Accelerate's states are those of the process."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def same(guarded: dict[str, Any], plain: dict[str, Any]) -> bool:
    return all(guarded[key] == plain[key] for key in ("seen", "states", "rng"))


@pytest.mark.system
@pytest.mark.parametrize(
    "given",
    [
        {"accumulate": 4},
        {"generator": True},
        {"loader": SEEDABLE},
        {"loader": {"dispatch_batches": True}},
        {"loader": {"split_batches": True}},
    ],
    ids=str,
)
def test_a_guarded_run_without_an_incident_is_the_plain_one_bit_for_bit(given: dict[str, Any], tmp_path: Path) -> None:
    """An epoch has 15 micro-batches: 2 and 4 do not divide it."""
    options = Options(**SHORT | given)
    assert same(train_guarded(options, tmp_path), train_plain(options))


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"loader": SEEDABLE, "store": "accelerate"},
        pytest.param({"loader": SEEDABLE, "accumulate": 1}, marks=pytest.mark.system),
        pytest.param({"generator": True, "accumulate": 4, "workers": 2}, marks=pytest.mark.system),
        pytest.param({"loader": SEEDABLE | {"dispatch_batches": True}}, marks=pytest.mark.system),
        pytest.param({"loader": SEEDABLE | {"split_batches": True}}, marks=pytest.mark.system),
    ],
    ids=str,
)
def test_a_run_that_was_rolled_back_is_the_plain_one_without_the_skipped_batches(
    given: dict[str, Any], tmp_path: Path
) -> None:
    options = Options(**{**SHORT, "skips": [[3, 6], [12, 16]], **given})
    guarded = train_guarded(options, tmp_path)
    assert guarded["executed"] > options.steps + 10
    assert same(guarded, train_plain(options))


@pytest.mark.system
@pytest.mark.parametrize(
    ("given", "stop_at"), [({"generator": True}, 10), ({"loader": SEEDABLE, "store": "accelerate"}, 13)]
)
def test_a_process_that_died_in_the_middle_of_an_epoch_continues_bit_for_bit(
    given: dict[str, Any], stop_at: int, tmp_path: Path
) -> None:
    options = Options(**SHORT | given)
    before = train_guarded(options, tmp_path, stop_at=stop_at)["seen"]
    after = train_guarded(options, tmp_path)
    assert min(after["seen"]) == 10
    assert same({**after, "seen": before | after["seen"]}, train_plain(options))


@pytest.mark.system
def test_a_person_resumes_from_an_older_checkpoint_of_accelerate_bit_for_bit(tmp_path: Path) -> None:
    options = Options(**SHORT, store="accelerate", loader=SEEDABLE)
    first = train_guarded(options, tmp_path)
    again = train_guarded(options, tmp_path, resume_from=10)
    assert min(again["seen"]) == 10
    assert same({**again, "seen": first["seen"] | again["seen"]}, first)


@pytest.mark.system
def test_no_arms_are_tried_with_the_checkpoints_of_accelerate_and_the_rollback_is_carried_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {**SHORT, "skips": [[3, 6]], "store": "accelerate", "loader": SEEDABLE}
    assert same(train_guarded(Options(**options, arms=True), tmp_path), train_plain(Options(**options)))
    assert caplog.text.count("no arms are tried: these checkpoints cannot hold the state of now") == 1


def test_a_stream_is_skipped_by_reading_it() -> None:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(27))

    loader = Accelerator(cpu=True, gradient_accumulation_steps=2).prepare(DataLoader(Stream(), batch_size=4))
    batches = Batches(loader, accumulate=2)
    straight = [[micro.tolist() for micro in batches[index]] for index in range(8)]
    assert [len(step) for step in straight] == [2, 2, 2, 1] * 2
    for index in (5, 1, 7, 3):
        assert [micro.tolist() for micro in batches[index]] == straight[index]


def test_accelerate_ends_a_step_at_the_end_of_an_epoch_however_early_its_batches_are_loaded() -> None:
    training = Training(Options(rows=20))  # 5 micro-batches: steps of 2, 2 and 1
    batches = Batches(training.loader, accumulate=2)
    synced = []
    for index in range(6):
        step = batches[index]
        step[-1]  # all of them are loaded before the first is used
        for _ in step:
            with training.accelerator.accumulate(training.model):
                synced.append(training.accelerator.sync_gradients)
    assert synced == [False, True, False, True, True] * 2


def test_a_loader_that_was_given_up_is_not_taken_for_the_one_in_use() -> None:
    training = Training(Options())
    stream = MicroBatches(training.loader)
    for position in (22, 3, 22, 5):
        stream.seek(position)
        next(stream)
    in_use = [each for each in training.accelerator.gradient_state.dataloader_references if each is not None]
    assert len(in_use) == 1
    assert not training.accelerator.gradient_state.end_of_dataloader
    stream.close()
    assert not training.accelerator.gradient_state.in_dataloader


def trained(folder: Path) -> tuple[Training, AcceleratorCheckpoints]:
    """Checkpoints of the steps 0 to 3."""
    training = Training(Options())
    checkpoints = AcceleratorCheckpoints(training.accelerator, folder)
    stream = MicroBatches(training.loader)
    for step in range(4):
        checkpoints.save(step, {"step": step})
        training.step([next(stream), next(stream)])
    return training, checkpoints


def test_a_scheduler_that_accelerate_does_not_know_is_refused_and_what_it_wraps_is_known(tmp_path: Path) -> None:
    training = Training(Options())
    given = {"model": training.model, "optimizer": training.optimizer}
    Checkpoints(tmp_path / "a", **given, scheduler=training.scheduler).check_complete()
    with pytest.raises(ConfigurationError, match=r"OneCycleLR: Checkpoints\(.., model=model, optimizer=optimizer, sch"):
        Checkpoints(tmp_path / "b", **given).check_complete()
    AcceleratorCheckpoints(training.accelerator, tmp_path / "c").check_complete()
    training.accelerator._schedulers.clear()
    sentence = r"the checkpoints leave out the OneCycleLR: accelerator.register_for_checkpointing\(scheduler\)"
    with pytest.raises(ConfigurationError, match=sentence):
        AcceleratorCheckpoints(training.accelerator, tmp_path / "d").check_complete()


def test_a_checkpoint_at_a_url_is_restored_and_read_from_a_copy_that_does_not_stay(tmp_path: Path) -> None:
    training = Training(Options())
    url = f"memory://{tmp_path.name}/run"
    checkpoints = AcceleratorCheckpoints(training.accelerator, url)
    checkpoints.save(3, {"step": 3})
    saved = training.final()
    for parameter in training.model.parameters():
        parameter.data.zero_()
    assert checkpoints.load(3) == {"step": 3}
    assert training.final() == saved
    assert AcceleratorCheckpoints(training.accelerator, url).steps() == [3]


def test_what_is_not_restored_as_it_was_saved_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, checkpoints = trained(tmp_path)
    monkeypatch.setattr(training.scheduler.scheduler, "load_state_dict", lambda state: None)
    with pytest.raises(CheckpointMismatch, match="scheduler 0 differs from the checkpoint of step 2"):
        checkpoints.load(2)


def test_what_other_processes_have_written_is_not_restored(tmp_path: Path) -> None:
    _, checkpoints = trained(tmp_path)
    checkpoints.ranks.size = 2
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        checkpoints.load(2)


def test_accelerate_neither_names_nor_deletes_them(tmp_path: Path) -> None:
    project = ProjectConfiguration(str(tmp_path), automatic_checkpoint_naming=True, total_limit=1)
    accelerator = Accelerator(cpu=True, project_config=project)
    model = torch.nn.Linear(2, 2)
    accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    checkpoints = AcceleratorCheckpoints(accelerator, tmp_path / "ours")
    assert checkpoints.expected(1, 2) == (3, 3 * (3 * 6) * 4)  # weights and two moments of 6 numbers
    for step in range(3):
        checkpoints.save(step, {})
        accelerator.save_state()
    assert checkpoints.steps() == [0, 1, 2]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint_2"]
    with pytest.raises(ValueError, match="where accelerate deletes by itself: choose another folder"):
        AcceleratorCheckpoints(accelerator, tmp_path / "checkpoints/ours")


def test_a_strategy_or_an_accumulation_that_does_not_fit_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP was asked for, and accelerate runs NO instead"):
        check_strategy(Accelerator(cpu=True))
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps=4\) and Batches\(accumulate=2\) differ"):
        Batches(Training(Options(accumulate=4)).loader, accumulate=2)
    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type = type(accelerator.distributed_type)("DEEPSPEED")
    with pytest.raises(ValueError, match="the strategy DEEPSPEED is not supported"):
        check_strategy(accelerator)


def test_the_names_of_accelerate_that_are_used_are_there() -> None:
    """If one is missing after an upgrade, the sentence of the failure names it."""
    training = Training(Options())
    names = {
        training.loader: ["base_dataloader", "gradient_state", "end_of_dataloader", "iteration", "set_epoch", "end"],
        training.accelerator: ["_models", "_optimizers", "_schedulers", "_custom_objects", "project_configuration"],
        training.accelerator.gradient_state: ["dataloader_references", "num_steps", "sync_with_dataloader"],
    }
    missing = [f"{each!r}: {name}" for each, wanted in names.items() for name in wanted if not hasattr(each, name)]
    assert missing == []


def test_without_accelerate_one_sentence_says_what_to_install() -> None:
    code = "import sys; sys.modules['accelerate'] = None; import lossguard.accelerate"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("pip install 'lossguard[accelerate]'")
