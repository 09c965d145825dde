"""Whether the time of an answer separates a token that is nearly right from one that is all wrong.

    python -m tests.reliability.token_timing [--requests 4000]

A real collector on loopback refuses pairs of tokens over one connection: one shares all but the last character with a
valid one, the other has its length and shares nothing. Once for LOSSGUARD_TOKEN, once for a token of the store. Printed
are the medians, and Student's t of the differences within the pairs, without the tenth that is furthest out: the two
kinds cannot be distinguished while |t| is below 4.5, the usual threshold of such tests. The exit code is 0 only then.
"""

import argparse
import json
import math
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import urllib3

from db.records import access
from db.records.access import Scope
from db.store.engine import create_engine, writing
from lossguard.vocabulary.protocol import API
from tests.reliability.collector import NOW, CollectorProcess

THRESHOLD = 4.5


def student_t(pairs: Sequence[tuple[float, float]]) -> float:
    """Student's t of the differences, without the largest and the smallest twentieth: these are the machine's."""
    cut = len(pairs) // 20
    differences = sorted(first - second for first, second in pairs)[cut : len(pairs) - cut]
    return statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(len(differences)))


def measure(url: str, token: str, num_requests: int) -> list[tuple[float, float]]:
    """Seconds until the refusal of (a token that is nearly right, one that is all wrong), in random order."""
    nearly = token[:-1] + ("a" if token[-1] != "a" else "b")
    wrong = "".join("x" if character != "x" else "y" for character in token)
    rng, pairs = random.Random(1), []
    with urllib3.PoolManager(retries=False) as http:

        def refused(presented: str) -> float:
            began = time.perf_counter()
            answer = http.request("GET", f"{url}{API}/runs", headers={"authorization": f"Bearer {presented}"})
            assert answer.status in (401, 429)
            return time.perf_counter() - began

        for _ in range(num_requests // 2):
            if rng.random() < 0.5:
                pairs.append((refused(nearly), refused(wrong)))
            else:
                pairs.append((refused(wrong), refused(nearly))[::-1])
    return pairs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4000)
    arguments = parser.parse_args()
    is_alike = True
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/store.db"
        owner = secrets.token_urlsafe(32)
        collector = CollectorProcess(url, Path(folder) / "log", LOSSGUARD_TOKEN=owner, LOSSGUARD_LOG_LEVEL="error")
        collector.start()
        try:
            collector.wait_until_up("/healthz")
            engine = create_engine(url)
            with writing(engine) as session:
                stored = access.create_token(session, name="t", scopes=[Scope.READ], project=None, now=NOW)[1]
            engine.dispose()
            for name, token in (("LOSSGUARD_TOKEN", owner), ("stored", stored)):
                pairs = measure(collector.url, token, arguments.requests)
                t = student_t(pairs)
                nearly, wrong = (round(1e6 * statistics.median(each), 1) for each in zip(*pairs, strict=True))
                is_alike = is_alike and abs(t) < THRESHOLD
                medians = {"nearly_right_us": nearly, "wrong_us": wrong}
                print(json.dumps({"token": name} | medians | {"t": round(t, 2)}), flush=True)
        finally:
            collector.kill()
    return 0 if is_alike else 1


if __name__ == "__main__":
    sys.exit(main())
