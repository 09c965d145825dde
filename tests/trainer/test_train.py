import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from lossguard import Skip
from lossguard.torch import Checkpoints, Knob
from lossguard.vocabulary.errors import ConfigurationError
from tests.trainer.small import logged, small_recipe, waits_for_an_order
from trainer.components import build_components, choose_device
from trainer.config import DataConfig, ModelConfig, ObjectiveConfig, Recipe
from trainer.errors import UsageError
from trainer.faults import Fault
from trainer.process.signals import ExtraSignals
from trainer.remedies import Knobs
from trainer.train import Job, TrainingResult, train, training_step

EXACT = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss", "lr", "tokens", "batch_index")


def _run(recipe: Recipe, directory: Path, **job: Any) -> TrainingResult:
    settings: dict[str, Any] = {"directory": directory, "run_id": "r", "mode": "offline"} | job
    return train(recipe, Job(**settings))


def _numbers(directory: Path) -> dict[int, list[Any]]:
    return {step: [metrics[name] for name in EXACT] for step, metrics in logged(directory, "r").items()}


def _final_state(directory: Path) -> dict[str, Any]:
    """The weights and the optimizer's state in the newest checkpoint of the run."""
    (folder,) = directory.glob("*/r/checkpoints")
    newest = max(Checkpoints(folder).steps())
    state = {name: torch.load(folder / f"step-{newest:09d}" / f"{name}.pt") for name in ("model", "optimizer")}
    moments = {f"{i}.{name}": value for i, item in state["optimizer"]["state"].items() for name, value in item.items()}
    return {"step": torch.tensor(newest), **state["model"], **moments}


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_run_that_a_person_resumes_from_an_older_checkpoint_equals_the_first_one(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=25)
    _run(recipe, tmp_path)
    state = _final_state(tmp_path)
    with pytest.raises(ConfigurationError, match=r"resume_from=12: .*; choose one of 0, 5, 10, 15, 20, 25"):
        _run(recipe, tmp_path, resume_from=12)
    _run(recipe, tmp_path, resume_from=10)
    assert _equal(_final_state(tmp_path), state)
    (folder,) = tmp_path.glob("*/r/checkpoints")
    assert sorted(int(each.name[5:]) for each in (folder / "discarded").iterdir()) == [15, 20, 25]


@pytest.mark.slow
def test_a_run_learns_and_reports_every_step_with_all_its_metrics(tmp_path: Path) -> None:
    outcome = _run(small_recipe(tmp_path, steps=60), tmp_path)
    steps = logged(tmp_path, "r")
    assert (outcome.steps_done, outcome.interrupted_by) == (60, None)
    assert list(steps) == list(range(60))
    assert steps[59]["loss"] < steps[0]["loss"] - 1.0
    assert all(metrics["perplexity"] == math.exp(metrics["loss"]) for metrics in steps.values())
    assert {*EXACT, "step_seconds"} <= steps[3].keys()
    assert [step for step in steps if "held_out_loss" in steps[step]] == [9, 19, 29, 39, 49, 59]
    assert all(("evaluation_seconds" in steps[step]) == ("held_out_loss" in steps[step]) for step in steps)
    assert outcome.held_out is not None
    last = (steps[59]["held_out_loss"], steps[59]["held_out_loss_se"])
    assert last == (outcome.held_out.mean, outcome.held_out.standard_error)
    assert [steps[step]["tokens"] for step in (0, 1, 59)] == [64, 128, 3840]


RANDOM_RECIPES: tuple[dict[str, Any], ...] = (
    {},
    {"model": ModelConfig(layers=2, heads=2, width=16, context=16, dropout=0.1)},
    {"objective": ObjectiveConfig(scheduled_sampling=0.5), "data": DataConfig(path="markov:1,16", batch_size=4)},
)


@pytest.mark.slow
@pytest.mark.parametrize("changed", RANDOM_RECIPES, ids=["plain", "dropout", "roll-out on a Markov chain"])
def test_twenty_steps_and_twenty_more_are_bit_for_bit_forty(tmp_path: Path, changed: dict[str, Any]) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    _run(small_recipe(tmp_path, steps=40, **changed), whole)
    _run(small_recipe(tmp_path, steps=20, **changed), halves)
    torch.manual_seed(99)  # a new process would not have our generator either
    _run(small_recipe(tmp_path, steps=40, **changed), halves)
    assert _numbers(whole) == _numbers(halves)
    assert _equal(_final_state(whole), _final_state(halves))


def _recipe_of_documents(folder: Path, rows: str) -> Recipe:
    """30 documents of 6 to 54 bytes."""
    (folder / "texts").mkdir()
    for number in range(30):
        (folder / "texts" / f"{number}.txt").write_text("12345 " * (number % 9 + 1))
    return small_recipe(folder, steps=60, data=DataConfig(path=str(folder / "texts"), batch_size=4, rows=rows))


def test_the_loss_of_a_padded_batch_is_the_mean_over_its_tokens(tmp_path: Path) -> None:
    """Computed again in float64, one row after the other, without padding."""
    recipe = _recipe_of_documents(tmp_path, "documents")
    components = build_components(recipe)
    batch = components.batches[0]
    lengths = (batch.targets_BT != -100).sum(dim=1).tolist()
    assert min(lengths) < max(lengths) == 16
    exact, losses = deepcopy(components.model).double(), []
    for inputs_T, targets_T, length in zip(batch.inputs_BT, batch.targets_BT, lengths, strict=True):
        logits_TV = exact(inputs_T[None, :length])[0]
        losses.append(cross_entropy(logits_TV, targets_T[:length], reduction="none"))
    knobs = Knobs(z_weight=Knob(recipe.optimizer.z_weight), clip_norm=Knob(recipe.optimizer.clip_norm))
    extra = ExtraSignals((), components.model, components.optimizer)
    metrics = training_step(recipe, components, batch, None, knobs, None, extra)
    assert metrics["loss"] == pytest.approx(torch.cat(losses).mean().item())


@pytest.mark.slow
def test_without_the_shift_a_model_repeats_its_input_and_learns_nothing_of_the_next_token(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=60, objective=ObjectiveConfig(shift=False))
    outcome = _run(recipe, tmp_path)
    assert outcome.held_out is not None
    assert logged(tmp_path, "r")[59]["loss"] < 2.0 < outcome.held_out.mean


def test_skipped_batches_are_never_seen_and_the_schedule_does_not_notice(tmp_path: Path) -> None:
    _run(small_recipe(tmp_path), tmp_path / "all")
    _run(small_recipe(tmp_path), tmp_path / "skipping", skips=[Skip(7, 12)])
    every, skipping = logged(tmp_path / "all", "r"), logged(tmp_path / "skipping", "r")
    assert [metrics["batch_index"] for metrics in skipping.values()] == [*range(7), *range(12, 25)]
    assert [metrics["lr"] for metrics in every.values()] == [metrics["lr"] for metrics in skipping.values()]
    assert [every[step]["loss"] == skipping[step]["loss"] for step in (6, 7)] == [True, False]


@pytest.mark.slow
def test_a_rollback_that_skips_is_bit_for_bit_a_run_that_skips_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(tmp_path, steps=150, evaluate_every=0)
    order = {"id": 1, "key": "k1", "kind": "rollback", "rewind_to": 7, "skip_from": 5, "skip_to": 9, "reason": "test"}
    with _collector_that_orders(order) as url:
        wait = waits_for_an_order(20, monkeypatch)
        _run(recipe, tmp_path / "ordered", mode="online", url=url, on_step=wait)
    _run(recipe, tmp_path / "skipped", skips=[Skip(5, 9)])
    assert _final_state(tmp_path / "ordered")["step"] == 150
    assert _numbers(tmp_path / "ordered") == _numbers(tmp_path / "skipped")
    assert _equal(_final_state(tmp_path / "ordered"), _final_state(tmp_path / "skipped"))


@pytest.mark.slow
def test_an_injected_fault_disturbs_its_batches_and_only_the_configuration_names_it(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=30)
    _run(recipe, tmp_path / "clean")
    _run(recipe, tmp_path / "faulty", faults=[Fault("random_targets", 20, 3), Fault("lr_kick", 99, 1)])
    clean, faulty = logged(tmp_path / "clean", "r"), logged(tmp_path / "faulty", "r")
    assert [faulty[step]["loss"] > clean[step]["loss"] + 0.3 for step in (19, 20, 21, 22)] == [False, True, True, True]
    lines = [json.loads(line) for line in next(tmp_path.glob("faulty/*/r/*.spool")).read_text().splitlines()]
    named = [line for line in lines if "random_targets" in json.dumps(line)]
    assert named
    for config in [line["run"]["config"] for line in named]:
        assert config["faults"] == ["random_targets@20x3", "lr_kick@99x1"]
        assert config["faults_in_data"] == ["random_targets@20x3"]


def test_a_run_whose_checkpoints_cannot_be_opened_has_failed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be opened"):
        _run(small_recipe(tmp_path), tmp_path, checkpoints="nowhere://bucket/runs")
    lines = next(tmp_path.glob("*/r/*.spool")).read_text().splitlines()
    assert json.loads(lines[-1])["finish"] == "failed"


@pytest.mark.slow
def test_a_run_without_recording_trains_the_same_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    _run(small_recipe(tmp_path), tmp_path / "recorded")
    _run(small_recipe(tmp_path), tmp_path / "off", mode="off")
    assert not list(tmp_path.glob("off/**/*.spool"))
    assert _equal(_final_state(tmp_path / "recorded"), _final_state(tmp_path / "off"))


def test_a_gpu_that_is_not_there_is_refused() -> None:
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UsageError, match=f"device = '{beyond}' cannot be used"):
        choose_device(beyond)
    assert choose_device("cpu") == torch.device("cpu")


@contextmanager
def _collector_that_orders(order: dict[str, Any]) -> Iterator[str]:
    """A server that takes everything, and answers the first report that holds a step >= 10 with the order."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = {"id": "r", "state": "running", "policy": {}, "segment": 0, "parent": None, "fork_step": 0}
            steps = body.get("steps", [])
            orders = [order] if any(step >= 10 for step in steps) else []
            self._answer(answer | {"accepted": len(steps), "duplicates": 0, "orders": orders})

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(order | {"state": "applied"})

        def _answer(self, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_a_run_on_the_first_windows_is_not_continued_with_other_data(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=2, evaluate_every=0)
    recipe = replace(recipe, data=replace(recipe.data, max_windows=8))
    _run(recipe, tmp_path)
    Path(recipe.data.path).write_text("quite another text\n" * 500)
    with pytest.raises(UsageError, match="number of training windows in the data was"):
        _run(replace(recipe, steps=4), tmp_path)


@pytest.mark.slow
def test_with_the_gate_a_gradient_that_is_nan_costs_one_update(tmp_path: Path) -> None:
    _run(small_recipe(tmp_path, evaluate_every=0), tmp_path, gate=True, faults=[Fault("nan_gradient", 15, 1)])
    steps = logged(tmp_path, "r")
    assert [step for step in steps if "skipped" in steps[step]] == [15]
    assert math.isfinite(steps[19]["loss"])
