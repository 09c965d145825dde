"""Whether a replay names the cause that was planted: runs with one fault each, watched by a collector, then replayed.

    python -m benchmarks.replay [--seed 1 --seed 2] [--only STATE]

What is planted just before a checkpoint (step 299, with one at 300) is in the state from which the trouble is replayed;
what strikes the weights after it is gone when they are restored.
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
    with tempfile.TemporaryDirectory() as place, collector(Path(place)) as url:
        for seed in given.seed or [1]:
            for number, (faults, cause) in enumerate(PLANTED.items()):
                if given.only is None or given.only in faults:
                    right += tried(Path(place), url, f"run-{seed}-{number}", seed, faults, cause)
                    total += 1
    print(f"\n{right} of {total} verdicts are right")


def tried(place: Path, url: str, run_id: str, seed: int, faults: str, cause: Cause) -> bool:
    """Plant, train, replay the first incident, print a row: whether the verdict is right."""
    recipe = load_recipe("drill", [f"steps={STEPS}", f"seed={seed}", "evaluate_every=0", "optimizer.decay_steps=1000"])
    job = Job(directory=place, run_id=run_id, mode="online", url=url, quiet=True, on_step=lambda *_: time.sleep(PACE))
    train(recipe, replace(job, faults=[parse_fault(fault) for fault in faults.split()]))
    incidents = ask(url, f"/runs/{run_id}/incidents")
    found = [each for each in incidents if each["detected_step"] >= 299]
    if not found:
        print(f"| {seed} | `{faults}` | {cause} | not detected | | | |", flush=True)
        return False
    began = time.perf_counter()
    finding = replayed(place, url, f"{run_id}/{found[0]['number']}")
    spent = time.perf_counter() - began
    culprits = ", ".join(numbered(first, end) for first, end in finding.culprits)
    row = [seed, f"`{faults}`", cause, finding.cause, culprits, found[0]["detected_step"], f"{spent:.0f}"]
    print("| " + " | ".join(map(str, row)) + " |", flush=True)
    return finding.cause is cause


def replayed(place: Path, url: str, incident: str) -> Finding:
    """What `python -m trainer replay` does."""
    case, knower = find_case(incident, at=None, url=url, directory=place)
    record = read_record(folder_of(place, case.run_id), key=case.segment, step=case.detected)
    finding = replay(case, record, tell=lambda _: None)
    assert knower is not None
    write_verdict(knower, case, finding.to_dict())
    return finding


if __name__ == "__main__":
    main()
