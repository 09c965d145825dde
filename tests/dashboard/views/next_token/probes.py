"""Probes for tests."""

import math

from lossguard.vocabulary.wire import Probe


def probe(*shares: float, target: int | None = None, rest: float = 0.0, rest_count: int = 0) -> Probe:
    tokens = tuple("abcdefgh"[: len(shares)])
    logs = tuple(math.log(share) if share > 0 else -math.inf if share == 0 else math.nan for share in shares)
    return Probe(
        prompt="p",
        tokens=tokens,
        log_probabilities=logs,
        target=None if target is None else tokens[target],
        target_log_probability=None if target is None else logs[target],
        rest_count=rest_count,
        rest_log_probability=math.log(rest) if rest_count else None,
    )
