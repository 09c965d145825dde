"""How often do advisory signals warn for nothing, and how early do they warn of what comes? Prints Markdown tables.

    python -m benchmarks.advisory [--seeds 20] [--rows 10000]

The quiet streams have MAX_ADVISORY of them beside loss, grad norm and log Z, with the noise that such signals have:
norms that are log-normal and autocorrelated, the largest of many logits (Gumbel) on a level that grows, losses of few
tokens with heavy tails, an imbalance that falls as the router learns. In the other streams one of them leaves its
level LEAD rows before the loss does.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from lossguard.vocabulary.states import IncidentKind
from monitor.backtesting.backtest import backtest_rows
from monitor.detection import DetectionSettings, Rows
from monitor.detection.interventions.policy import Policy
from monitor.detection.rows import Floats

LEAD = 40
FAULT_ROW = 1500
Make = Callable[[np.random.Generator, int], Floats]


def correlated(random: np.random.Generator, num: int, weight: float = 0.6) -> Floats:
    """AR(1) noise of unit variance."""
    noise, shocks = np.empty(num), random.standard_normal(num) * np.sqrt(1 - weight * weight)
    last = 0.0
    for row in range(num):
        last = noise[row] = weight * last + shocks[row]
    return noise


def update_norm(random: np.random.Generator, num: int) -> Floats:
    warmup, rows = np.minimum(np.arange(num) / 200 + 0.01, 1.0), np.arange(num)
    norms: Floats = 1e-3 * warmup * (1 + np.cos(np.pi * rows / num)) * np.exp(0.05 * correlated(random, num)) + 1e-6
    return norms


def attention_logit_max(random: np.random.Generator, num: int) -> Floats:
    return 8.0 + 6.0 * np.sqrt(np.arange(num) / num) + random.gumbel(0.0, 0.4, num)


def expert_imbalance(random: np.random.Generator, num: int) -> Floats:
    return 0.1 + 0.6 * np.exp(-np.arange(num) / 800) + 0.03 * np.abs(correlated(random, num))


def source_loss(random: np.random.Generator, num: int) -> Floats:
    scale = random.uniform(0.03, 0.15)
    return random.uniform(1.5, 3.0) + 2.0 * np.exp(-np.arange(num) / 700) + scale * random.standard_t(5, num)


def layer_grad_norm(random: np.random.Generator, num: int) -> Floats:
    return random.uniform(0.05, 0.5) * np.exp(random.uniform(0.08, 0.3) * correlated(random, num, 0.4))


SIGNALS: dict[str, Make] = {
    "update_norm": update_norm,
    "attention_logit_max": attention_logit_max,
    "expert_imbalance": expert_imbalance,
    **{f"source_loss/{number}": source_loss for number in range(5)},
    **{f"layer_grad_norm/{number}": layer_grad_norm for number in range(8)},
}
LEAVES: dict[str, Callable[[Floats], Floats]] = {
    "update_norm": lambda values: values * 6.0,
    "attention_logit_max": lambda values: values + 2.0 * np.arange(1, len(values) + 1),
    "expert_imbalance": lambda values: values + 1.5,
    "source_loss/0": lambda values: values + 1.5,
    "layer_grad_norm/0": lambda values: values * 8.0,
}
"""How a signal leaves its level before the loss does."""


def stream(seed: int, num: int, *, advisory: bool = True) -> dict[str, Floats]:
    """Columns of a healthy run."""
    random = np.random.default_rng(seed)
    columns = {
        "loss": 2.2 + 1.5 * np.exp(-np.arange(num) / 500) + 0.03 * random.standard_normal(num),
        "grad_norm": 0.3 * np.exp(0.1 * random.standard_normal(num)),
        "log_z": 8.0 + 0.05 * random.standard_normal(num),
    }
    return columns | ({name: make(random, num) for name, make in SIGNALS.items()} if advisory else {})


def quiet(seeds: int, num: int) -> Iterator[str]:
    yield f"| quiet streams of {num:,} rows | false incidents per 10k rows | of them early warnings | actions |"
    yield "|---|---|---|---|"
    total = seeds * num / 1e4
    for name, advisory in (("loss, grad norm, log Z", False), (f"with {len(SIGNALS)} advisory signals", True)):
        kinds: Counter[str] = Counter()
        by_signal: Counter[str] = Counter()
        actions = 0
        for seed in range(seeds):
            for incident in incidents(stream(seed, num, advisory=advisory)):
                kinds[incident["kind"]] += 1
                by_signal[incident["signal"]] += 1
                actions += incident["action"]["kind"] != "none"
        warnings = kinds[IncidentKind.EARLY_WARNING]
        yield f"| {name} | {kinds.total() / total:.2f} | {warnings / total:.2f} | {actions / total:.2f} |"
        if by_signal:
            yield f"<!-- {dict(by_signal)} -->"


def early(seeds: int) -> Iterator[str]:
    yield f"\n| signal out of band {LEAD} rows before the loss | warned | rows before the alarm of the loss (median) |"
    yield "|---|---|---|"
    for name, leave in LEAVES.items():
        leads = []
        for seed in range(seeds):
            columns = stream(seed, FAULT_ROW + 100)
            columns[name][FAULT_ROW - LEAD :] = leave(columns[name][FAULT_ROW - LEAD :])
            columns["loss"][FAULT_ROW:] += 1.0
            found = incidents(columns)
            spikes = [each["detected_step"] for each in found if each["signal"] == "loss"]
            warned = [each["detected_step"] for each in found if each["signal"] == name]
            leads += [spikes[0] - warned[0]] if spikes and warned else []
        yield f"| {name} | {len(leads)}/{seeds} | {np.median(leads) if leads else '-'} |"


def incidents(columns: dict[str, Floats]) -> list[dict[str, Any]]:
    rows = Rows.of(np.arange(len(columns["loss"])), **columns)
    return backtest_rows(rows, DetectionSettings(), Policy())["incidents"]  # type: ignore[no-any-return]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advisory", description="Are advisory signals quiet?")
    parser.add_argument("--seeds", type=int, default=20, help="streams of each kind")
    parser.add_argument("--rows", type=int, default=10_000, help="rows of a quiet stream")
    options = parser.parse_args(arguments)
    for line in (*quiet(options.seeds, options.rows), *early(options.seeds)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
