"""A first alert: the loss of this run becomes NaN, and the person on call is notified within a minute.

python examples/first_page.py [--seconds 120]

It reports to LOSSGUARD_URL with LOSSGUARD_TOKEN and needs nothing but the SDK. The run cannot be rolled back, so the
alert NonFiniteLoss fires until the run ends after --seconds, and is resolved then.
"""

import argparse
import math
import random
import time

import lossguard

NUM_GOOD_STEPS = 100
"""Steps before the NaN."""


def main(seconds: float) -> None:
    try:
        run = lossguard.init(project="first-page", mode="online")
    except lossguard.ConfigurationError as mistake:
        raise SystemExit(f"first_page: {mistake}") from None
    noise = random.Random(0)
    for step in range(NUM_GOOD_STEPS):
        run.log(step, loss=2.0 + noise.gauss(0, 0.02))
    print(
        f"run {run.id}: the loss is NaN from step {NUM_GOOD_STEPS} on; NonFiniteLoss should alert within a minute",
        flush=True,
    )
    end = time.monotonic() + seconds
    step = NUM_GOOD_STEPS
    while time.monotonic() < end:
        run.log(step, loss=math.nan)
        step += 1
        time.sleep(1)
    run.finish()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python examples/first_page.py")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the run logs NaN")
    main(parser.parse_args().seconds)
