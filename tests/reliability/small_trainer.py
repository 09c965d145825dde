"""The smallest trainer with checkpoints and a guard, for tests with several processes of one run.

    python -m tests.reliability.small_trainer CHECKPOINTS --steps 100000

LOSSGUARD_URL, LOSSGUARD_DIR, LOSSGUARD_RUN_ID and LOSSGUARD_LOCK_WAIT say the rest. It prints each rollback and each
resume, and exits with 3 and the sentence when it may not begin.
"""

import argparse
import random
import sys

import lossguard
from lossguard.torch import Checkpoints
from tests.lossguard.checkpoints.box import Box
from tests.waiting import pause


class Indices:
    def __getitem__(self, index: int) -> int:
        return index


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds per step")
    options = parser.parse_args()
    noise, box = random.Random(1), Box()
    try:
        run = lossguard.init("project")
        guard = lossguard.Guard(run, checkpoints=Checkpoints(options.checkpoints, box=box), every=10)
        guard.tell = lambda sentence: print(sentence, flush=True)
        for step, _ in guard.steps(Indices(), until=options.steps):
            box.value += 1
            pause(options.pause)
            run.log(step, loss=3.0 + noise.gauss(0, 0.02))
    except lossguard.ConfigurationError as problem:
        print(problem, file=sys.stderr, flush=True)
        return 3
    run.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
