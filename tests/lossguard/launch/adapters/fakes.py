"""A FAKE of Megatron-LM: its command line and folder layout, and nothing else of it.

    python fakes.py --save DIR --save-interval 5 --train-iters 60 [--load DIR --ckpt-step N] ..

The model is the list of the batches that it was trained on. It is written to final.json.
"""

import argparse
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.waiting import eventually

SECONDS = 0.02
WAIT_AT = int(os.environ.get("WAIT_AT", -1))
"""The step at which a process that does not resume waits, to be stopped."""
trackio: Any = import_module("trackio")  # the fake tracker of the tests


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
        is_held = iteration == WAIT_AT and not options.load
        eventually(lambda: stopped, 600.0 if is_held else SECONDS)
        if stopped:
            save()
            sys.exit(0)
        if iteration % options.save_interval == 0:
            save()
    return model


if __name__ == "__main__":
    Path("final.json").write_text(json.dumps({"model": megatron(sys.argv[1:])}))
