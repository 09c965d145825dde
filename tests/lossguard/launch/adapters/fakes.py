"""FAKES of Megatron-LM, torchtitan and nanochat: their command lines and folder layouts, and nothing else of them.

    python fakes.py megatron --save DIR --save-interval 5 --train-iters 60 [--load DIR --ckpt-step N] ..
    python -m .. torchtitan --dump_folder DIR --training.steps 60 --checkpoint.interval 5 [--checkpoint.load_step N]
    python fakes.py nanochat --num-iterations 60 --save-every 5 [--resume-from-step N]

The model is the list of the batches that it was trained on. It is written to final.json.
"""

import argparse
import json
import os
import signal
import sys
import time
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

SECONDS = 0.02
WAIT_AT = int(os.environ.get("WAIT_AT", -1))
"""The step at which a process that does not resume waits, to be stopped."""
trackio: Any = import_module("trackio")  # the fake tracker of the tests


def pause(step: int, *, resumed: bool) -> None:
    """What a step takes."""
    time.sleep(SECONDS)
    while step == WAIT_AT and not resumed:
        time.sleep(SECONDS)


def megatron(arguments: list[str]) -> list[int]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", type=Path)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--ckpt-step", type=int)
    parser.add_argument("--save-interval", type=int)
    parser.add_argument("--train-iters", type=int)
    parser.add_argument("--iterations-to-skip", type=int, nargs="+", default=[])
    parser.add_argument("--exit-signal-handler", action="store_true")
    options = parser.parse_args(arguments)
    stopped: list[int] = []
    if options.exit_signal_handler:
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    tracker = "latest_checkpointed_iteration.txt"
    iteration = 0
    model: list[int] = []
    if options.load and (options.load / tracker).exists():
        iteration = options.ckpt_step or int((options.load / tracker).read_text())
        path = options.load / f"iter_{iteration:07d}" / "common.json"
        model = json.loads(path.read_text())

    def save() -> None:
        path = options.save / f"iter_{iteration:07d}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "common.json").write_text(json.dumps(model))
        (path / "metadata.json").write_text("{}")
        (options.save / tracker).write_text(str(iteration))

    run = trackio.Run()
    while iteration < options.train_iters:
        iteration += 1
        if iteration in options.iterations_to_skip:
            continue
        model.append(iteration - 1)
        run.log({"lm loss": 2.0}, step=iteration)
        pause(iteration, resumed=options.load is not None)
        if stopped:
            save()
            sys.exit(0)
        if iteration % options.save_interval == 0:
            save()
    return model


def torchtitan(arguments: list[str]) -> list[int]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dump_folder", type=Path, default=Path("./outputs"))
    parser.add_argument("--training.steps", type=int, dest="steps")
    parser.add_argument("--checkpoint.interval", type=int, dest="interval")
    parser.add_argument("--checkpoint.load_step", type=int, dest="load_step", default=-1)
    options = parser.parse_args(arguments)
    folder = options.dump_folder / "checkpoint"
    found = [int(path.name[5:]) for path in folder.glob("step-*") if (path / ".metadata").exists()]
    step = max(found, default=0) if options.load_step == -1 else options.load_step
    model: list[int] = json.loads((folder / f"step-{step}" / "state.json").read_text()) if step else []
    run = trackio.Run()
    while step < options.steps:
        step += 1
        model.append(step - 1)
        run.log({"loss_metrics/global_avg_loss": 2.0}, step=step)
        is_restarted = options.load_step != -1
        pause(step, resumed=is_restarted)
        if step == 33 and is_restarted and not Path("died").exists():  # as `torch._assert_async` ends it
            Path("died").touch()
            os.abort()
        if step % options.interval == 0:
            (folder / f"step-{step}").mkdir(parents=True, exist_ok=True)
            (folder / f"step-{step}" / "state.json").write_text(json.dumps(model))
            (folder / f"step-{step}" / ".metadata").touch()
    return model


def nanochat(arguments: list[str]) -> list[int]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num-iterations", type=int)
    parser.add_argument("--save-every", type=int)
    parser.add_argument("--resume-from-step", type=int, default=-1)
    options = parser.parse_args(arguments)
    folder = Path(os.environ["NANOCHAT_BASE_DIR"]) / "base_checkpoints" / "d20"
    step = 0
    model: list[int] = []
    if options.resume_from_step != -1:
        step = options.resume_from_step
        model = json.loads((folder / f"meta_{step:06d}.json").read_text())
    run = trackio.Run()
    while step < options.num_iterations:
        if step and step != options.resume_from_step and step % options.save_every == 0:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"model_{step:06d}.pt").touch()
            (folder / f"meta_{step:06d}.json").write_text(json.dumps(model))
            with zipfile.ZipFile(folder / f"optim_{step:06d}_rank0.pt", "w") as archive:
                archive.writestr("data", b"")
        model.append(step)
        run.log({"train/loss": 2.0}, step=step)
        pause(step, resumed=options.resume_from_step != -1)
        step += 1
    return model


if __name__ == "__main__":
    kinds: dict[str, Any] = {"megatron": megatron, "torchtitan": torchtitan, "nanochat": nanochat}
    Path("final.json").write_text(json.dumps({"model": kinds[sys.argv[1]](sys.argv[2:])}))
