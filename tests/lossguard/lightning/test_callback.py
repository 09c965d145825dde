import json
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, IterableDataset

from lossguard.lightning import Lossguard, Watch
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.wording import size as bytes_of
from tests.lossguard.lightning.fitting import (
    LoggingRun,
    Module,
    Numbers,
    assert_same,
    break_weight,
    filtered,
    fit,
    shuffled,
)
from tests.lossguard.scripted import rollback

pytestmark = pytest.mark.slow


@pytest.mark.system
@pytest.mark.parametrize(("size", "own"), [(40, True), (42, False), (44, True)])
def test_without_an_order_a_guarded_fit_is_that_of_lightning_alone(tmp_path: Path, size: int, own: bool) -> None:
    """With a short last micro-batch, or 11 of them; with a generator of the loader's own, or that of the loop."""

    def loader() -> Any:
        return shuffled(size) if own else DataLoader(Numbers(size), batch_size=4, shuffle=True)

    settings: dict[str, Any] = {"max_epochs": 5, "accumulate_grad_batches": 2, "validation": True}
    plain = fit(tmp_path, loader(), **settings)
    guarded = fit(tmp_path, loader(), Lossguard(LoggingRun(), every=7), **settings)
    assert_same(guarded, plain)
    assert guarded.events == plain.events
    assert len(plain.seen) == 5 * ((len(loader()) + 1) // 2)


@pytest.mark.parametrize("store", ["lossguard", "lightning"])
def test_a_metric_that_is_nan_says_nothing_against_the_state_of_the_model(tmp_path: Path, store: str) -> None:
    """Such as the loss of code in a batch without any."""
    module = Module(before_step=lambda module: module.log("loss/code", torch.nan))
    fit(tmp_path, shuffled(40), Lossguard(run := LoggingRun(), every=5, store=store), module=module, max_steps=10)
    assert run.restorable == [0, 5, 10]


def test_after_rollbacks_a_fit_is_one_that_never_read_the_skipped_batches(tmp_path: Path) -> None:
    run = LoggingRun({31: rollback(1, rewind_to=13, skip_from=14, skip_to=22), 70: rollback(2, rewind_to=30)})
    settings: dict[str, Any] = {"max_steps": 60, "accumulate_grad_batches": 2, "gradient_clip_val": 0.1}
    module = Module(before_step=break_weight(at=27))
    guarded = fit(tmp_path, shuffled(44), Lossguard(run, every=5, skip_samples="once"), module=module, **settings)
    assert [each[:3] for each in run.recorded] == [("start", 0, None), ("rollback", 10, 1), ("rollback", 30, 2)]
    num_bytes = sum(4 * each.numel() for each in guarded.parameters())
    assert run.announced == [f"a checkpoint every 5 steps, 13 kept (~{bytes_of(13 * 3 * num_bytes)})"]
    plain = fit(tmp_path, filtered(44, [(14, 22)], steps=60, accumulate=2), **settings)
    assert_same(guarded, plain)
    assert guarded.events[-1] == plain.events[-1]
    losses = {step: loss for step, _, metrics in run.logged for name, loss in metrics.items() if name == "loss"}
    assert list(losses.values()) == pytest.approx(
        [sum(each[1] for each in plain.seen[step]) / len(plain.seen[step]) for step in range(60)]
    )


class Stream(IterableDataset[torch.Tensor]):
    """A stream that says how long it is."""

    def __iter__(self) -> Any:
        return map(Numbers(42).__getitem__, range(42))

    def __len__(self) -> int:
        return 42


def test_a_stream_with_a_length_is_rolled_back_too(tmp_path: Path) -> None:
    run = LoggingRun({15: rollback(1, rewind_to=8)})
    settings: dict[str, Any] = {"max_epochs": 3, "accumulate_grad_batches": 2}
    guarded = fit(tmp_path, DataLoader(Stream(), batch_size=4), Lossguard(run, every=5), **settings)
    assert [each[:3] for each in run.recorded] == [("start", 0, None), ("rollback", 5, 1)]
    assert_same(guarded, fit(tmp_path, DataLoader(Stream(), batch_size=4), **settings))


@pytest.mark.system
def test_later_epochs_leave_out_the_samples_of_skipped_batches(tmp_path: Path) -> None:
    run = LoggingRun({11: rollback(1, rewind_to=4, skip_from=5, skip_to=8)})
    guarded = fit(tmp_path, shuffled(44), Lossguard(run, every=5), max_steps=40, accumulate_grad_batches=2)
    assert run.recorded[1][3]["compared"]
    found = run.recorded[1][3]["samples"]
    assert [(first, end) for first, end, _ in found] == [(10, 11), (11, 15)]
    skipped = {sample for _, _, samples in found for sample in samples}
    assert len(skipped) == 19  # of the second range, one was skipped before
    batch_of = {step: batch for step, batch, _ in run.logged}
    later = [seen for step, seen in guarded.seen.items() if (batch_of[step] or 0) >= 8]
    assert len(later) == 35
    assert not skipped & {sample for seen in later for samples, *_ in seen for sample in samples}


@pytest.mark.system
def test_a_run_that_was_interrupted_continues_as_if_it_had_not_been(tmp_path: Path) -> None:
    def send_signal(module: Module) -> None:
        if module.trainer.global_step == 9:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    settings: dict[str, Any] = {"max_epochs": 4, "accumulate_grad_batches": 2, "validation": True}
    module = Module(before_step=send_signal)
    first = fit(tmp_path, shuffled(44, workers=2), Lossguard(LoggingRun()), module=module, **settings)
    assert signal.getsignal(signal.SIGTERM) is before
    assert max(first.seen) == 9
    run = LoggingRun()
    second = fit(tmp_path, shuffled(44, workers=2), Lossguard(run), **settings)
    assert [each[:2] for each in run.recorded] == [("resume", 10)]
    plain = fit(tmp_path, shuffled(44, workers=2), **settings)
    second.seen = first.seen | second.seen
    assert_same(second, plain)
    assert second.events[-4:] == plain.events[-4:]


@pytest.mark.system
def test_a_run_that_is_done_trains_nothing_more_and_a_longer_one_continues(tmp_path: Path) -> None:
    fit(tmp_path, shuffled(44), Lossguard(LoggingRun()), max_epochs=2)
    again = fit(tmp_path, shuffled(44), Lossguard(LoggingRun()), max_epochs=2)
    assert (again.seen, len(again.events), again.trainer.global_step) == ({}, 1, 22)
    longer = fit(tmp_path, shuffled(44), Lossguard(LoggingRun()), max_epochs=4)
    assert (min(longer.seen), max(longer.seen)) == (22, 43)
    plain = fit(tmp_path, shuffled(44), max_epochs=4)
    plain.seen = {step: seen for step, seen in plain.seen.items() if step >= 22}
    assert_same(longer, plain)
    assert longer.events == plain.events[2:]
    loader: Any = longer.trainer.train_dataloader  # the user's own again
    assert len(list(islice(loader, 30))) == 11


@pytest.mark.system
def test_a_fit_that_ended_after_the_first_step_of_an_epoch_continues_within_the_order_of_the_epoch(
    tmp_path: Path,
) -> None:
    class Shuffled(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([Numbers(44)[index] for index in torch.randperm(44).tolist()])

        def __len__(self) -> int:
            return 44

    fits = []
    for folder, ends in (("whole", [16]), ("parts", [12, 16])):
        for end in ends:
            loader = DataLoader(Shuffled(), batch_size=4)
            fits.append(fit(tmp_path / folder, loader, Lossguard(LoggingRun()), max_steps=end))
    whole, first, longer = fits
    longer.seen = first.seen | longer.seen
    assert_same(longer, whole)


@pytest.mark.system
def test_a_person_resumes_a_fit_from_an_older_checkpoint_even_one_that_is_done(tmp_path: Path) -> None:
    first = fit(tmp_path, shuffled(44), Lossguard(LoggingRun(), every=5), max_epochs=2)
    run = LoggingRun()
    run.history.num_segments = 1
    again = fit(tmp_path, shuffled(44), Lossguard(run, every=5, resume_from=10), max_epochs=2)
    assert run.recorded[0] == ("resume", 10, None, {"resume_from": 10, "rewound_to": 10})
    assert (min(again.seen), max(again.seen)) == (10, 21)
    again.seen = first.seen | again.seen
    assert_same(again, first)
    with pytest.raises(ConfigurationError, match=r"resume_from=7: no checkpoint of that step .* one of 0, 5, 10, 15"):
        fit(tmp_path, shuffled(44), Lossguard(LoggingRun(), resume_from=7), max_epochs=2)
    with pytest.raises(ConfigurationError, match="resume_from=-1 must be a step, from 0"):
        Lossguard(LoggingRun(), resume_from=-1)


@pytest.mark.system
@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"max_steps": 16}])
def test_an_order_at_the_last_step_is_executed(tmp_path: Path, limit: dict[str, int]) -> None:
    steps = limit.get("max_steps", 20)
    run = LoggingRun({steps + 1: rollback(rewind_to=5, skip_from=7, skip_to=9)})
    settings: dict[str, Any] = {**limit, "gradient_clip_val": 0.1}
    callback = Lossguard(run, every=5, memory=3, memory_every=5, skip_samples="once")
    guarded = fit(tmp_path, shuffled(40), callback, **settings)
    assert [each[:2] for each in run.recorded] == [("start", 0), ("rollback", 5)]
    assert_same(guarded, fit(tmp_path, filtered(40, [(7, 9)], steps=steps, accumulate=1), **settings))
    assert guarded.trainer.max_steps == limit.get("max_steps", -1)
    assert guarded.trainer.global_step == steps


@pytest.mark.system
def test_other_callbacks_know_nothing_of_a_discarded_branch(tmp_path: Path) -> None:
    def callbacks(folder: str) -> list[Any]:
        kept = ModelCheckpoint(tmp_path / folder, monitor="val_loss", save_top_k=2, save_last=True, every_n_epochs=1)
        return [kept, EarlyStopping("val_loss", patience=50), LearningRateMonitor()]

    settings: dict[str, Any] = {"max_epochs": 8, "validation": True, "enable_checkpointing": True}
    settings |= {"val_check_interval": 5}
    run = LoggingRun({34: rollback(rewind_to=12, skip_from=14, skip_to=15)})
    mine, theirs = callbacks("mine"), callbacks("theirs")
    module = Module(before_step=break_weight(at=31))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningRateMonitor, "on_train_start", lambda *_: None)  # it wants a logger
        patch.setattr(LearningRateMonitor, "on_train_batch_start", lambda *_: None)
        guarded = fit(
            tmp_path, shuffled(40), Lossguard(run, every=6, skip_samples="once"), *mine, module=module, **settings
        )
        plain = fit(tmp_path, filtered(40, [(14, 15)], steps=80, accumulate=1), *theirs, **settings)
    assert_same(guarded, plain)
    assert (mine[1].wait_count, mine[1].best_score) == (theirs[1].wait_count, theirs[1].best_score)
    assert sorted(each.name for each in (tmp_path / "mine").glob("*.ckpt")) == sorted(
        each.name for each in (tmp_path / "theirs").glob("*.ckpt")
    )
    assert {Path(name).name for name in mine[0].best_k_models} == {Path(name).name for name in theirs[0].best_k_models}
    assert list((tmp_path / "mine" / "discarded").glob("*.ckpt"))
    saved = [torch.load(each[0].last_model_path, weights_only=True)["state_dict"] for each in (mine, theirs)]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])
    held_out = [metrics["held_out_loss"] for _, _, metrics in run.logged if "held_out_loss" in metrics]
    assert held_out[-3:] == [each[3] for each in plain.events if each[0] == "validation"][-3:]


@pytest.mark.system
@pytest.mark.parametrize("names", [("n", "desc"), ("completed", "description")], ids=["tqdm", "rich"])
def test_what_others_show_of_the_repeated_steps_takes_the_place_of_the_first_time(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    bars: list[tuple[int, int, str]] = []

    class Shows(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            count, text = (getattr(trainer.progress_bar_callback.train_progress_bar, name) for name in names)
            text = text.removeprefix("[white]")  # the style that Lightning 2.4 sets there
            bars.append((trainer.current_epoch * 10 + batch_idx, count, text[:7]))

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *others: Any) -> None:
            pl_module.log("step_loss", outputs["loss"], on_step=True)

    run = LoggingRun({14: rollback(rewind_to=7, skip_from=8, skip_to=10)})
    shown: dict[str, Any] = {"logger": TensorBoardLogger(tmp_path), "enable_progress_bar": True, "log_every_n_steps": 1}
    callbacks = [Lossguard(run, every=5), Shows(), TQDMProgressBar() if "n" in names else RichProgressBar()]
    module = fit(tmp_path, shuffled(40), *callbacks, max_steps=20, validation=True, **shown)
    [folder] = {file.parent for file in tmp_path.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    logged = [(each.step, each.value) for each in events.Scalars("step_loss")]
    assert logged == [(step, pytest.approx(seen[0][1])) for step, seen in sorted(module.seen.items())]
    assert [each.step for each in events.Scalars("val_loss")] == [9, 19]
    assert bars == [(step, step % 10, f"Epoch {step // 10}") for step in [*range(13), *range(5, 20)]]


@pytest.mark.system
def test_an_order_lowers_the_learning_rate_and_not_the_schedule(tmp_path: Path) -> None:
    run = LoggingRun({11: rollback(rewind_to=5, lr_scale=0.5)})
    guarded = fit(tmp_path, shuffled(40), Lossguard(run, every=5, skip_samples="once"), max_steps=20)
    plain = fit(tmp_path, shuffled(40), Watch(watched := LoggingRun()), max_steps=20)
    rates = [metrics["lr"] for _, _, metrics in watched.logged]
    assert [metrics["lr"] for _, _, metrics in run.logged] == [*rates[:10], *(rate / 2 for rate in rates[5:])]
    assert guarded.lr_schedulers().state_dict() == plain.lr_schedulers().state_dict()  # type: ignore[union-attr]


@pytest.mark.system
@pytest.mark.parametrize(
    "settings",
    [
        {"limit_train_batches": 7, "accumulate_grad_batches": 2},
        {"overfit_batches": 3},
        {"precision": "bf16-mixed", "check_val_every_n_epoch": 2, "validation": True},
        {"val_check_interval": 4, "validation": True, "num_sanity_val_steps": 2},
    ],
    ids=str,
)
def test_settings_of_the_trainer_hold_with_and_without_a_rollback(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings = {"max_steps": 40, **settings}
    plain = fit(tmp_path, shuffled(40), **settings)
    alone = fit(tmp_path, shuffled(40), Lossguard(LoggingRun(), directory=tmp_path / "alone"), **settings)
    assert_same(alone, plain)
    assert alone.events == plain.events
    run = LoggingRun({30: rollback(rewind_to=13)})
    guarded = fit(
        tmp_path, shuffled(40), Lossguard(run, every=5, skip_samples="once", directory=tmp_path / "guarded"), **settings
    )
    assert_same(guarded, plain)
    assert guarded.events[-1] == plain.events[-1]


@pytest.mark.system
def test_a_trial_of_a_few_batches_writes_no_checkpoint(tmp_path: Path) -> None:
    run = LoggingRun()
    fit(tmp_path, shuffled(40), Lossguard(run), fast_dev_run=3)
    assert [step for step, _, _ in run.logged] == [0, 1, 2]
    assert not list(tmp_path.iterdir())


@pytest.mark.system
def test_a_run_begun_without_us_is_continued_at_its_place_in_the_data(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"accumulate_grad_batches": 2}
    first = fit(tmp_path, shuffled(44), max_steps=15, **settings)
    first.trainer.save_checkpoint(tmp_path / "own.ckpt")
    run = LoggingRun()
    guarded = fit(tmp_path, shuffled(44), Lossguard(run), max_steps=30, checkpoint=tmp_path / "own.ckpt", **settings)
    plain = fit(tmp_path, shuffled(44), max_steps=30, **settings)
    assert [(step, index) for step, index, _ in run.logged] == [(step, step) for step in range(15, 30)]
    assert {step: [each[2:] for each in seen] for step, seen in guarded.seen.items()} == {
        step: [each[2:] for each in seen] for step, seen in plain.seen.items() if step >= 15
    }


@pytest.mark.system
def test_an_error_in_the_loop_is_raised_as_it_is_and_everything_is_as_before(tmp_path: Path) -> None:
    def fail(module: Module) -> None:
        if module.trainer.global_step == 7:
            raise RuntimeError("mine")

    before = signal.getsignal(signal.SIGINT)
    module = Module(before_step=fail)
    run = LoggingRun()
    with pytest.raises(RuntimeError, match="mine"):
        fit(tmp_path, shuffled(40), Lossguard(run, every=5), module=module, max_steps=20)
    assert signal.getsignal(signal.SIGINT) is before
    assert "process_dataloader" not in vars(module.trainer.strategy)
    assert [step for step, _, _ in run.logged] == list(range(7))
    again = fit(tmp_path, shuffled(40), Lossguard(LoggingRun(), every=5), max_steps=20)
    assert min(again.seen) == 5


def test_an_error_of_ours_leaves_the_training_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = LoggingRun()
    guard = Lossguard(run, every=5)

    def fail(module: Module) -> None:
        if module.trainer.global_step == 7 and guard.controller is not None:
            guard.controller.boundary = None  # type: ignore[assignment,method-assign]

    guarded = fit(tmp_path, shuffled(40), guard, module=Module(before_step=fail), max_epochs=2)
    assert_same(guarded, fit(tmp_path, shuffled(40), max_epochs=2))
    assert "the run is not guarded any more, and training continues" in caplog.text
    assert run.unguarded.startswith("the guard has failed (TypeError: ")


@pytest.mark.system
@pytest.mark.parametrize(
    ("launcher", "store"),
    [(["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"], "lossguard"), ([], "lightning")],
)
def test_two_ranks_are_rolled_back_together_bit_for_bit(tmp_path: Path, launcher: list[str], store: str) -> None:
    """Under torchrun, and under Lightning's own launcher."""
    command = [sys.executable, "-m", *launcher, "tests.lossguard.lightning.ranks", str(tmp_path), "2", store]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"2-{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    assert [each[:2] for each in first["recorded"]] == [["start", 0], ["rollback", 10], ["rollback", 20]]
    for each in (first, second):
        assert [each["seen"], each["random"], all(each["weights"]), each["optimizer"]] == [True] * 4
    for step, metrics in first["logged"].items():
        losses = [*first["losses"][step], *second["losses"][step]]
        assert metrics["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
        assert metrics.keys() == {"loss", "log_z", "grad_norm", "lr"}


@pytest.mark.system
def test_a_search_for_a_learning_rate_before_the_fit_reads_the_loader_alone(tmp_path: Path) -> None:
    search = LearningRateFinder(num_training_steps=5, attr_name="lr")
    module = Module()
    module.lr = 1e-2  # type: ignore[assignment]
    run = LoggingRun()
    fit(tmp_path, shuffled(40), Lossguard(run), search, module=module, max_steps=10)
    assert [(step, index) for step, index, _ in run.logged] == [(step, step) for step in range(10)]


@pytest.mark.system
def test_a_resume_that_fails_ends_the_fit_before_its_first_step(tmp_path: Path) -> None:
    """A model that was restored in part is not trained on."""
    fit(tmp_path, shuffled(40), Lossguard(LoggingRun()), max_steps=3)
    wider = Module()
    wider.net[2] = torch.nn.Linear(16, 9)
    with pytest.raises(RuntimeError, match="size mismatch"):
        fit(tmp_path, shuffled(40), Lossguard(LoggingRun()), module=wider, max_steps=6)
    assert wider.seen == {}


@pytest.mark.system
def test_a_run_that_is_continued_with_other_batches_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, shuffled(40), Lossguard(LoggingRun()), max_steps=3)
    for loader, accumulate in ((shuffled(40), 2), (shuffled(40, batch=8), 1)):
        again = Module()
        with pytest.raises(ConfigurationError, match="10 micro-batches an epoch, 1 a step; this has"):
            fit(
                tmp_path, loader, Lossguard(LoggingRun()), module=again, max_steps=6, accumulate_grad_batches=accumulate
            )
        assert again.seen == {}
