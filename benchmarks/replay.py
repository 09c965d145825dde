"""Whether a replay names the cause that was planted: runs with one fault each, watched by a collector, then replayed.

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

STEPS = 390  # the policy waits up to 16 steps, then the run goes back
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
    arguments.add_argument("--seed", type=int, action="append", help="of a run; repeatable")
    arguments.add_argument("--only", help="plant only the faults whose name holds this")
    given = arguments.parse_args()
    right = total = 0
    print("| seed | planted | cause | verdict | batches | detected | replay (s) |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, run_collector(Path(place)) as client:
        for seed in given.seed or [1]:
            for number, (faults, cause) in enumerate(PLANTED.items()):
                if given.only is None or given.only in faults:
                    right += tried(Path(place), client, f"run-{seed}-{number}", seed, faults, cause)
                    total += 1
    print(f"\n{right} of {total} verdicts are right")


def tried(place: Path, client: Client, run_id: str, seed: int, faults: str, cause: Cause) -> bool:
    """Plant, train, replay the first incident, print a row: whether the verdict is right."""
    recipe = load_recipe("drill", [f"steps={STEPS}", f"seed={seed}", "evaluate_every=0", "optimizer.decay_steps=1000"])
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
    found = [each for each in incidents if each["detected_step"] >= 299]
    if not found:
        print(f"| {seed} | `{faults}` | {cause} | not detected | | | |", flush=True)
        return False
    began = time.perf_counter()
    verdict = replayed(place, client.url, f"{run_id}/{found[0]['number']}")
    spent = time.perf_counter() - began
    culprits = ", ".join(batch_range(first, end) for first, end in verdict.culprits)
    row = [seed, f"`{faults}`", cause, verdict.cause, culprits, found[0]["detected_step"], f"{spent:.0f}"]
    print("| " + " | ".join(map(str, row)) + " |", flush=True)
    return verdict.cause is cause


def replayed(place: Path, url: str, incident: str) -> ReplayVerdict:
    """What `python -m trainer replay` does."""
    target, client = find_incident(incident, at=None, url=url)
    record = read_record(run_folder(place, target.run_id), key=target.segment, step=target.detected)
    verdict = replay(target, record, report=lambda _: None)
    assert client is not None
    write_verdict(client, target, verdict.to_dict())
    return verdict


if __name__ == "__main__":
    main()
