import multiprocessing
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback

from lossguard import Skip
from lossguard.hf import guard
from lossguard.vocabulary.protocol import SKIPPED_SAMPLE_RETURNED
from lossguard.vocabulary.wording import size
from tests.lossguard.hf.small import LENGTH, InOrder, LoggedRun, Rows, Traced, filtered, guarded, state_of, trainer_in
from tests.lossguard.scripted import rollback
from tests.waiting import eventually

pytestmark = pytest.mark.slow


def _without_times(history: list[dict[str, Any]], *others: str) -> list[dict[str, Any]]:
    timed = ("_runtime", "_per_second", *others)
    return [{name: value for name, value in each.items() if not name.endswith(timed)} for each in history]


@pytest.mark.system
def test_without_an_incident_a_guarded_training_is_the_plain_one_bit_for_bit(tmp_path: Path) -> None:
    """The last step of an epoch is short."""
    options: dict[str, Any] = {"num_train_epochs": 2, "eval_strategy": "epoch", "dataloader_num_workers": 1}
    plain = trainer_in(tmp_path / "plain", Rows(46), **options)
    plain.train()
    trainer, run = guarded(tmp_path, Rows(46), **options)
    trainer.train()
    assert trainer.trace == plain.trace
    assert state_of(trainer) == state_of(plain)
    assert _without_times(trainer.state.log_history) == _without_times(plain.state.log_history)
    assert vars(trainer.state) | {"log_history": []} == vars(plain.state) | {"log_history": []}
    assert [step for step, _ in run.logged] == list(range(plain.state.max_steps))


def test_after_a_rollback_and_a_skip_it_is_the_plain_training_on_the_other_batches(tmp_path: Path) -> None:
    rows = Rows(200)
    whole = trainer_in(tmp_path / "whole", rows, max_steps=50)
    whole.train()
    trainer, run = guarded(tmp_path, rows, {15: rollback(rewind_to=7, skip_from=8, skip_to=16)}, max_steps=40)
    trainer.train()
    plain = trainer_in(tmp_path / "plain", filtered(whole, 40, range(8, 16), rows), max_steps=40, cls=InOrder)
    plain.train()
    assert trainer.live() == plain.live()
    assert state_of(trainer) == state_of(plain)
    assert _without_times(trainer.state.log_history, "epoch") == _without_times(plain.state.log_history, "epoch")
    assert [kind for kind, *_ in run.recorded] == ["start", "rollback"]
    assert run.recorded[1][1] == 5  # the checkpoint at or before step 7
    assert run.recorded[1][3]["compared"]
    assert not any(kind == SKIPPED_SAMPLE_RETURNED for kind, _ in run.events)
    num_bytes = sum(4 * each.numel() for each in trainer.model.parameters())
    assert run.announced == [f"a checkpoint every 5 steps, 9 kept (~{size(9 * 3 * num_bytes)})"]
    assert [metrics["tokens"] for _, metrics in run.logged] == [4 * LENGTH * (step + 1) for step, _ in run.logged]


@pytest.mark.system
def test_over_epochs_with_evaluation_and_workers_it_is_the_training_that_never_used_the_batches(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 45, "eval_strategy": "epoch", "dataloader_num_workers": 2}
    trainer, _ = guarded(tmp_path, Rows(46), {21: rollback(rewind_to=10, skip_from=13, skip_to=27)}, **options)
    trainer.train()
    reference = trainer_in(tmp_path / "reference", Rows(46), **options)
    guard(reference, LoggedRun(), every=50, skips=[Skip(13, 27)])
    reference.train()
    assert trainer.live() == reference.live()
    assert state_of(trainer) == state_of(reference)
    assert _without_times(trainer.state.log_history) == _without_times(reference.state.log_history)
    assert eventually(lambda: not multiprocessing.active_children()), "the workers end with the training"
    evaluated = [(each["step"], round(each["epoch"], 2)) for each in trainer.state.log_history if "eval_loss" in each]
    assert evaluated == [(12, 1.0), (13, 1.09), (22, 3.0), (34, 4.0), (45, 4.96)]  # 23 micro-batches in 12 steps


@pytest.mark.system
@pytest.mark.parametrize("workers", [0, 2])
def test_later_epochs_of_a_trainer_leave_out_the_rows_of_skipped_batches(tmp_path: Path, workers: int) -> None:
    orders = {9: rollback(rewind_to=5, skip_from=6, skip_to=9)}
    trainer, run = guarded(tmp_path, Rows(46), orders, max_steps=50, dataloader_num_workers=workers)
    trainer.train()
    batch_of = {step: batch or 0 for (step, _), batch in zip(run.logged, run.batches, strict=True)}
    skipped = set(run.recorded[1][3]["samples"][0][2])
    epochs: list[set[int]] = [set() for _ in range(5)]
    for step, micro_batches in trainer.live().items():
        epochs[batch_of[step] // 12] |= {row for rows, _ in micro_batches for row in rows}
    assert len(skipped) == 12
    assert epochs[0] | skipped == set(range(46))
    assert epochs[1:4] == [set(range(46)) - skipped] * 3
    assert max(trainer.live()) == 49


@pytest.mark.system
def test_what_others_show_of_the_repeated_steps_takes_the_place_of_the_first_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    bars: list[tuple[int, int]] = []

    class Bar(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bars.append((state.global_step, progress.training_bar.n))

    options: dict[str, Any] = {"logging_steps": 1, "report_to": ["tensorboard"], "disable_tqdm": False, "max_steps": 18}
    trainer, _ = guarded(tmp_path, Rows(46), {15: rollback(rewind_to=7, skip_from=8, skip_to=16)}, **options)
    progress: Any = next(each for each in trainer.callback_handler.callbacks if isinstance(each, ProgressCallback))
    trainer.add_callback(Bar())
    trainer.train()
    [folder] = {file.parent for file in tmp_path.rglob("events.out.tfevents.*")}
    shown = EventAccumulator(str(folder)).Reload().Scalars("train/loss")
    logged = [(each["step"], pytest.approx(each["loss"])) for each in trainer.state.log_history if "loss" in each]
    assert [(each.step, each.value) for each in shown] == logged
    assert [step for step, _ in bars] == [*range(1, 15), *range(6, 19)]
    assert all(step == shown for step, shown in bars)


class Stops(TrainerCallback):
    """Does something once, when a step begins."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action, self.is_done = step, action, False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step and not self.is_done:
            self.is_done = True
            self.action()


def sigterm() -> None:
    signal.raise_signal(signal.SIGTERM)


class Interrupt(Exception):
    pass


@pytest.mark.system
def test_a_signal_ends_the_training_after_its_step_and_another_process_continues_bit_for_bit(tmp_path: Path) -> None:
    plain = trainer_in(tmp_path / "plain", Rows(46), max_steps=30)
    plain.train()
    before = signal.getsignal(signal.SIGTERM)
    first, run = guarded(tmp_path / "one", Rows(46), max_steps=30, callbacks=[Stops(17, sigterm)])
    first.train()
    assert (first.state.global_step, run.interrupted) == (18, True)
    assert signal.getsignal(signal.SIGTERM) == before
    (tmp_path / "one").rename(tmp_path / "another")
    again, run = guarded(tmp_path / "another", Rows(46), max_steps=30)
    again.train()
    assert first.trace + again.trace == plain.trace
    assert state_of(again) == state_of(plain)
    assert [step for step, _ in run.logged] == list(range(18, 30))
    assert again.state.epoch == plain.state.epoch
    assert run.column("tokens")[0] == LENGTH * (4 * 19 - 2)  # one step of the first epoch is short


@pytest.mark.system
def test_a_step_within_which_a_callback_stops_the_training_was_not_done(tmp_path: Path) -> None:
    class Aborts(TrainerCallback):
        def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop |= state.global_step == 7

    trainer, run = guarded(tmp_path, Rows(46), max_steps=20, callbacks=[Aborts()])
    trainer.train()
    assert run.restorable[-1] == trainer.state.global_step == 7
    assert [step for step, _ in run.logged] == list(range(7))
    again, run = guarded(tmp_path, Rows(46), max_steps=20)
    again.train()
    assert [step for step, _ in run.logged] == run.batches == list(range(7, 20))
    assert [kind for kind, *_ in run.recorded] == ["resume"]


@pytest.mark.system
def test_an_exception_leaves_the_trainer_as_it_was_and_the_next_call_continues(tmp_path: Path) -> None:
    plain = trainer_in(tmp_path / "plain", Rows(46), max_steps=30)
    plain.train()

    def fail() -> None:
        raise Interrupt

    before = signal.getsignal(signal.SIGTERM)
    trainer, run = guarded(tmp_path, Rows(46), max_steps=30, callbacks=[Stops(17, fail)])
    attributes = set(vars(trainer)), dict(vars(trainer.args))
    with pytest.raises(Interrupt):
        trainer.train()
    assert signal.getsignal(signal.SIGTERM) == before
    assert "training_step" not in vars(trainer)
    assert "get_train_dataloader" not in vars(trainer)
    assert vars(trainer.args) == attributes[1]
    assert [step for step, _ in run.logged] == list(range(17))
    trainer.train()
    assert state_of(trainer) == state_of(plain)
    assert [step for step, _ in run.logged] == [*range(17), *range(15, 30)]


@pytest.mark.system
def test_a_training_that_has_done_its_steps_does_none_and_one_that_is_made_longer_continues(tmp_path: Path) -> None:
    trainer, _ = guarded(tmp_path, Rows(46), max_steps=10, lr_scheduler_type="constant")
    trainer.train()
    state = state_of(trainer)
    again, run = guarded(tmp_path, Rows(46), max_steps=10, lr_scheduler_type="constant")
    result = again.train()
    assert (again.trace, run.logged, result.global_step) == ([], [], 10)
    assert state_of(again) == state
    again.args.max_steps = 14
    again.train()
    assert [step for step, _ in run.logged] == [10, 11, 12, 13]


@pytest.mark.system
@pytest.mark.parametrize(("store", "knows_the_run"), [("lossguard", True), ("hf", False)])
def test_a_person_resumes_a_training_from_an_older_checkpoint_even_one_that_is_done(
    tmp_path: Path, store: str, knows_the_run: bool
) -> None:
    first, _ = guarded(tmp_path, Rows(46), max_steps=20, store=store)
    first.train()
    again, run = guarded(tmp_path, Rows(46), max_steps=20, store=store, resume_from=10)
    run.history.num_segments = int(knows_the_run)  # False: in another folder than before
    again.train()
    assert state_of(again) == state_of(first)
    assert [step for step, _ in run.logged] == list(range(10, 20))
    assert run.recorded[0] == ("resume", 10, None, {"resume_from": 10, "rewound_to": 10})


@pytest.mark.system
def test_a_training_that_began_without_a_guard_continues_at_its_batch(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 30, "save_strategy": "steps", "save_steps": 15}
    plain = trainer_in(tmp_path, Rows(46), **options)
    plain.train()
    trainer, run = guarded(tmp_path, Rows(46), {8: rollback(rewind_to=20, skip_from=40, skip_to=41)}, **options)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-15"))
    assert list(trainer.live().items()) == list(plain.live().items())[15:]
    assert state_of(trainer) == state_of(plain)
    assert run.recorded[1][:2] == ("rollback", 20)


@pytest.mark.system
def test_an_order_after_the_last_step_takes_the_run_back(tmp_path: Path) -> None:
    rows = Rows(200)
    whole = trainer_in(tmp_path / "whole", rows, max_steps=30)
    whole.train()
    trainer, _ = guarded(tmp_path, rows, {21: rollback(rewind_to=15, skip_from=15, skip_to=20)}, max_steps=20)
    trainer.train()
    plain = trainer_in(tmp_path / "plain", filtered(whole, 20, range(15, 20), rows), max_steps=20, cls=InOrder)
    plain.train()
    assert trainer.live() == plain.live()
    assert state_of(trainer) == state_of(plain)
    assert trainer.state.global_step == 20


@pytest.mark.system
def test_a_learning_rate_that_an_order_scales_is_used_and_the_schedule_stays(tmp_path: Path) -> None:
    plain = trainer_in(tmp_path / "plain", Rows(46), max_steps=20)
    plain.train()
    order = rollback(rewind_to=5, lr_scale=0.5)
    trainer, run = guarded(tmp_path, Rows(46), {11: order}, max_steps=20)
    trainer.train()
    lrs = [metrics["lr"] for step, metrics in run.logged][10:]
    first = [metrics["lr"] for step, metrics in run.logged][5:10]
    assert lrs[:5] == [lr / 2 for lr in first]
    assert trainer.lr_scheduler.state_dict() == plain.lr_scheduler.state_dict()
    assert trainer.state.log_history[1]["learning_rate"] == plain.state.log_history[1]["learning_rate"]


@pytest.mark.system
def test_early_stopping_counts_again_after_a_rollback_and_the_best_model_is_loaded(tmp_path: Path) -> None:
    class Worse(Traced):
        def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
            metrics = {"eval_loss": 1.0 + self.state.global_step / 100}
            self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    options: dict[str, Any] = {
        "max_steps": 40, "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4,
        "load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False, "cls": Worse,
    }  # fmt: skip
    stopping = EarlyStoppingCallback(early_stopping_patience=3)
    trainer, run = guarded(tmp_path, Rows(46), {13: rollback(rewind_to=6)}, callbacks=[stopping], every=2, **options)
    trainer.train()
    assert trainer.state.global_step == 16
    assert stopping.early_stopping_patience_counter == 3
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-4")
    assert {path.name for path in (tmp_path / "discarded").iterdir()} == {"checkpoint-8", "checkpoint-12"}
    assert [step for step, _ in run.logged] == [*range(12), *range(6, 16)]
    assert run.column("held_out_loss")[3] == 1.04


def test_an_error_of_ours_at_a_step_boundary_leaves_the_training_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = trainer_in(tmp_path / "plain", Rows(46), max_steps=14)
    plain.train()
    trainer, run = trainer_in(tmp_path, Rows(46), max_steps=14), LoggedRun()
    controller = guard(trainer, run, every=5)

    def break_boundary() -> None:
        controller.boundary = None  # type: ignore[assignment,method-assign]

    trainer.add_callback(Stops(7, break_boundary))
    trainer.train()
    assert trainer.trace == plain.trace
    assert state_of(trainer) == state_of(plain)
    assert run.batches == list(range(14))
    assert caplog.text.count("the run is not guarded any more, and training continues: TypeError") == 1
    assert run.unguarded.startswith("the guard has failed (TypeError: ")
    del controller.boundary
    trainer.args.max_steps = 16
    trainer.train()
    assert (run.unguarded, controller.checkpoints.steps()[-1]) == ("", 16)


@pytest.mark.system
def test_a_callback_that_asks_for_another_loader_leaves_the_training_its_own(tmp_path: Path) -> None:
    """The samples of a skipped batch stay out of the later epochs, also after `trainer.get_train_dataloader()`."""
    traces = []
    for name in ("alone", "asks"):
        orders = {13: rollback(rewind_to=6, skip_from=8, skip_to=11)}
        trainer, _ = guarded(tmp_path / name, Rows(46), orders, every=2, max_steps=40)
        if name == "asks":
            trainer.add_callback(Stops(14, lambda trainer=trainer: trainer.get_train_dataloader()))
        trainer.train()
        traces.append(trainer.trace)
    assert traces[0] == traces[1]


@pytest.mark.system
def test_a_callback_that_reads_the_loader_takes_no_batch_from_the_training(tmp_path: Path) -> None:
    class Reads(TrainerCallback):
        num_read = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.num_read += len(list(islice(others["train_dataloader"], 50)))

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.length = len(others["train_dataloader"])

        on_evaluate = on_train_end = on_train_begin

    options: dict[str, Any] = {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 5}
    alone, reads = Reads(), Reads()
    plain = trainer_in(tmp_path / "plain", Rows(46), callbacks=[alone], **options)
    plain.train()
    trainer, _ = guarded(tmp_path, Rows(46), callbacks=[reads], **options)
    trainer.train()
    assert trainer.trace == plain.trace
    assert state_of(trainer) == state_of(plain)
    assert reads.num_read == alone.num_read >= 3 * 23  # an epoch each time
    assert reads.length == alone.length == 23
