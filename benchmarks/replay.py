"""Whether a replay names the cause that was injected: runs with one fault each, watched by a collector, then replayed.

    python -m benchmarks.replay [--seed 1 --seed 2] [--only STATE]

A fault just before a checkpoint (step 299, with one at 300) is in the state from which the incident is replayed. A
fault in the weights after it is gone when they are restored.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lossguard import Cause, Client
from trainer.config import load_recipe
from trainer.drill.collector import run_collector
from trainer.drill.drill import MIN_STEP_SECONDS
from trainer.faults import parse_fault
from trainer.replay.incident import find_incident, run_folder, write_verdict
from trainer.replay.record import read_record
from trainer.replay.replay import replay
from trainer.replay.verdict import ReplayVerdict, batch_range
from trainer.train import Job, train

NUM_STEPS = 390  # the policy waits up to 16 steps before it rolls the run back
INJECTED: dict[str, Cause] = {
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
    arguments.add_argument("--only", help="inject only the faults whose name contains this text")
    options = arguments.parse_args()
    right = total = 0
    print("| seed | injected | cause | verdict | batches | detected | replay (s) |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, run_collector(Path(place)) as client:
        for seed in options.seed or [1]:
            for number, (faults, cause) in enumerate(INJECTED.items()):
                if options.only is None or options.only in faults:
                    right += replay_one(Path(place), client, f"run-{seed}-{number}", seed, faults, cause)
                    total += 1
    print(f"\n{right} of {total} verdicts are correct")


def replay_one(place: Path, client: Client, run_id: str, seed: int, faults: str, cause: Cause) -> bool:
    """Inject the faults, train, replay the first incident and print a row; whether the verdict is right."""
    recipe = load_recipe(
        "drill", [f"steps={NUM_STEPS}", f"seed={seed}", "evaluate_every=0", "optimizer.decay_steps=1000"]
    )
    job = Job(
        directory=place,
        run_id=run_id,
        mode="online",
        url=client.url,
        quiet=True,
        on_step=lambda *_: time.sleep(MIN_STEP_SECONDS),
    )
    train(recipe, replace(job, faults=[parse_fault(fault) for fault in faults.split()]))
    incidents = client.get(f"/runs/{run_id}/incidents")
    detected = [each for each in incidents if each["detected_step"] >= 299]
    if not detected:
        print(f"| {seed} | `{faults}` | {cause} | not detected | | | |", flush=True)
        return False
    began = time.perf_counter()
    verdict = replayed(place, client.url, f"{run_id}/{detected[0]['number']}")
    spent = time.perf_counter() - began
    culprits = ", ".join(batch_range(first, end) for first, end in verdict.culprits)
    row = [seed, f"`{faults}`", cause, verdict.cause, culprits, detected[0]["detected_step"], f"{spent:.0f}"]
    print("| " + " | ".join(map(str, row)) + " |", flush=True)
    return verdict.cause is cause


def replayed(place: Path, url: str, incident: str) -> ReplayVerdict:
    """Do what `python -m trainer replay` does."""
    target, client = find_incident(incident, at=None, url=url)
    record = read_record(run_folder(place, target.run_id), key=target.segment, step=target.detected)
    verdict = replay(target, record, report=lambda _: None)
    assert client is not None
    write_verdict(client, target, verdict.to_dict())
    return verdict


if __name__ == "__main__":
    main()
