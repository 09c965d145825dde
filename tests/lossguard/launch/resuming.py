"""A command that resumes from its own checkpoints, and what it is trained on."""

import json
from pathlib import Path
from typing import Any

from lossguard import Ledger, Skip

SCRIPT = """
import argparse, json, os, sys, time, trackio
parser = argparse.ArgumentParser()
parser.add_argument("--resume")
parser.add_argument("--until", type=int, default=60)
parser.add_argument("--die-at", type=int, default=-1)
parser.add_argument("--hang-at", type=int, default=-1)
parser.add_argument("--wait-at", type=int, default=-1)  # for the file "go", unless it resumes
options = parser.parse_args()
skips = json.loads(os.environ.get("LOSSGUARD_SKIPS", "[]"))
os.makedirs("out", exist_ok=True)
if os.path.exists("hangs"):
    os.remove("hangs")  # it was killed
state = json.load(open(options.resume)) if options.resume else {"step": 0, "batch": 0, "model": []}
with open("starts.jsonl", "a") as file:
    file.write(json.dumps([os.getpid(), options.resume, state["step"], time.time()]) + "\\n")
run = trackio.Run()
while state["step"] < options.until:
    batch = state["batch"]
    for begin, end in skips:
        batch = end if begin <= batch < end else batch
    state["model"].append(batch)
    if state["step"] == options.die_at and not os.path.exists("died"):
        open("died", "w").close()
        sys.exit(3)
    while state["step"] == options.hang_at and not os.path.exists("hung"):
        open("hangs", "w").close()
        time.sleep(60)
    while state["step"] == options.wait_at and options.resume is None and not os.path.exists("go"):
        time.sleep(0.02)
    run.log({"loss": 2.0}, step=state["step"])
    state["step"], state["batch"] = state["step"] + 1, batch + 1
    if state["step"] % 5 == 0:
        with open("out/partial", "w") as file:
            json.dump(state, file)
        os.rename("out/partial", f"out/step_{state['step']}.json")
    time.sleep(0.02)
json.dump(state, open("final.json", "w"))
"""
GENERIC = (
    *("--restart-with", "generic", "--checkpoints", "out/step_{step}.json"),
    *("--resume-args", "--resume {checkpoint}"),
)


def plain(until: int, *skips: tuple[int, int]) -> list[int]:
    """What a run without faults is trained on, with these batches left out."""
    ledger = Ledger(Skip(*skip) for skip in skips)
    return [ledger.nth_free(step) for step in range(until)]


def trained(folder: Path) -> list[int]:
    """What the command was trained on, at its end."""
    model: list[int] = json.loads((folder / "final.json").read_text())["model"]
    return model


def starts(folder: Path) -> list[tuple[int, Any, int, float]]:
    """Each start of the command: process, checkpoint, step, time."""
    return [tuple(json.loads(line)) for line in (folder / "starts.jsonl").read_text().splitlines()]
