"""A first page: a run whose loss becomes NaN, so that whoever is on call hears of it within a minute.

python examples/first_page.py [--seconds 120]

Reports to LOSSGUARD_URL with LOSSGUARD_TOKEN; needs the SDK alone. Nothing can be rolled back here, so the alert
NonFiniteLoss stays until the run ends after so many seconds, and is resolved then.
"""

import argparse
import math
import random
import time

import lossguard

GOOD = 100
"""Steps before the NaN."""


def main(seconds: float) -> None:
    try:
        run = lossguard.init(project="first-page", mode="online")
    except lossguard.ConfigurationError as mistake:
        raise SystemExit(f"first_page: {mistake}") from None
    noise = random.Random(0)
    for step in range(GOOD):
        run.log(step, loss=2.0 + noise.gauss(0, 0.02))
    print(f"run {run.id}: the loss is NaN from step {GOOD} on; NonFiniteLoss should page within a minute", flush=True)
    end = time.monotonic() + seconds
    step = GOOD
    while time.monotonic() < end:
        run.log(step, loss=math.nan)
        step += 1
        time.sleep(1)
    run.finish()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python examples/first_page.py")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the run goes on with NaN")
    main(parser.parse_args().seconds)
