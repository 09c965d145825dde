"""Whether a replay names the planted cause: runs with one fault each, watched by a collector, then replayed.

    python -m benchmarks.replay [--seed 1 --seed 2] [--only STATE]

A fault just before a checkpoint (step 299, with one at 300) is in the state from which the incident is replayed. A
fault that hits the weights after the checkpoint is gone when they are restored.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lossguard.states import Cause
from trainer.config import load_recipe
from trainer.drill.collector import ask, collector
from trainer.drill.drill import PACE
from trainer.faults import parse_fault
from trainer.replay.incident import find_case, folder_of, write_verdict
from trainer.replay.record import read_record
from trainer.replay.replay import replay
from trainer.replay.verdict import Finding, numbered
from trainer.train import Job, train

NUM_STEPS = 390  # the policy waits up to 16 steps before it rolls the run back
PLANTED: dict[str, Cause] = {
    "bit_flip@310": Cause.HARDWARE,
    "nan_gradient@310": Cause.HARDWARE,
    "moment_flip@310": Cause.HARDWARE,
    "lr_kick@310": Cause.HARDWARE,
    "random_targets@310": Cause.DATA,
    "corrupted_batches@310": Cause.DATA,
    "label_shuffle@310": Cause.DATA,
    "repeated_ngram@310": Cause.DATA,
    "moment_flip@299": Cause.STATE,
    "growing_weights@299": Cause.STATE,
    "swollen_row@260 rare_token@310": Cause.DATA_X_STATE,
    "swollen_row@295 rare_token@312x2": Cause.DATA_X_STATE,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, action="append", help="seed of the runs; repeatable")
    arguments.add_argument("--only", help="plant only the faults whose name contains this text")
    options = arguments.parse_args()
    right = total = 0
    print("| seed | planted | cause | verdict | batches | detected | replay (s) |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, collector(Path(place)) as url:
        for seed in options.seed or [1]:
            for number, (faults, cause) in enumerate(PLANTED.items()):
                if options.only is None or options.only in faults:
                    right += replay_one(Path(place), url, f"run-{seed}-{number}", seed, faults, cause)
                    total += 1
    print(f"\n{right} of {total} verdicts are correct")


def replay_one(place: Path, url: str, run_id: str, seed: int, faults: str, cause: Cause) -> bool:
    """Plant the faults, train, replay the first incident and print a row; whether the verdict is right."""
    recipe = load_recipe(
        "drill", [f"steps={NUM_STEPS}", f"seed={seed}", "evaluate_every=0", "optimizer.decay_steps=1000"]
    )
    job = Job(directory=place, run_id=run_id, mode="online", url=url, quiet=True, on_step=lambda *_: time.sleep(PACE))
    train(recipe, replace(job, faults=[parse_fault(fault) for fault in faults.split()]))
    incidents = ask(url, f"/runs/{run_id}/incidents")
    detected = [each for each in incidents if each["detected_step"] >= 299]
    if not detected:
        print(f"| {seed} | `{faults}` | {cause} | not detected | | | |", flush=True)
        return False
    began = time.perf_counter()
    finding = replayed(place, url, f"{run_id}/{detected[0]['number']}")
    spent = time.perf_counter() - began
    culprits = ", ".join(numbered(first, end) for first, end in finding.culprits)
    row = [seed, f"`{faults}`", cause, finding.cause, culprits, detected[0]["detected_step"], f"{spent:.0f}"]
    print("| " + " | ".join(map(str, row)) + " |", flush=True)
    return finding.cause is cause


def replayed(place: Path, url: str, incident: str) -> Finding:
    """Do what `python -m trainer replay` does."""
    case, knower = find_case(incident, at=None, url=url, directory=place)
    record = read_record(folder_of(place, case.run_id), key=case.segment, step=case.detected)
    finding = replay(case, record, tell=lambda _: None)
    assert knower is not None
    write_verdict(knower, case, finding.to_dict())
    return finding


if __name__ == "__main__":
    main()
