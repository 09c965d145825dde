"""The numbers of docs/lesson.md, computed again: from the formulas, and from the raw results in docs/measurements/."""

import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dashboard.data.compute import PUBLISHED
from trainer.config import load_recipe
from trainer.data.markov import random_chain
from trainer.model import GPT
from trainer.objective import squared_error

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "lesson.md").read_text(encoding="utf-8")
RESULTS = DOCS / "measurements"
Row = dict[str, str]


def section(heading: str, page: str = PAGE) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def table(heading: str, number: int = 0, page: str = PAGE) -> list[Row]:
    """The rows of a table of a section, by the headings of the columns."""
    tables = re.findall(r"(?:^\|.*\n)+", section(heading, page), re.MULTILINE)
    head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in tables[number].splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def number(cell: str) -> float:
    return float(cell.partition(",")[0] if "e" in cell else cell.replace(",", ""))


def results(name: str) -> list[dict[str, Any]]:
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_is_estimate(cell: str, values: list[float]) -> None:
    """The cell says mean +- standard error of these values, to the digits that it shows."""
    assert len(values) >= 3
    mean, _, error = cell.partition(" +- ")
    digits = len(mean.partition(".")[2])
    assert float(mean) == pytest.approx(np.mean(values), abs=0.51 * 10**-digits)
    if error:
        assert float(error) == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=0.51 * 10**-digits)
    else:
        assert np.ptp(values) == 0


def test_the_published_runs_cost_what_their_sizes_say_and_are_those_of_the_dashboard() -> None:
    known = {each.name: each for each in PUBLISHED}
    rows = {row["model"]: row for row in table("Compute: 6ND, and what others spent")}
    assert set(known) <= set(rows)
    for name, row in rows.items():
        if row["tokens D"] != "unpublished":
            n, d = number(row["parameters N"]), number(row["tokens D"])
            assert number(row["6ND"]) == pytest.approx(6 * n * d, rel=0.006)
            assert number(row["D / N"]) == pytest.approx(d / n, rel=0.02)
        if name in known:
            assert ("estimated" in "".join(row.values())) == known[name].is_estimated
            if known[name].parameters is not None:
                assert (known[name].parameters, known[name].tokens) == (n, d)
            published = re.match(r"[\d.]+e\d+", row["published FLOPs"])
            assert (None if published is None else float(published[0])) == known[name].reported_flops


def test_the_loss_that_a_small_model_costs_follows_from_the_published_law() -> None:
    def law(n: float, d: float) -> float:
        return 1.8172 + 482.01 / math.pow(n, 0.3478) + 2085.43 / math.pow(d, 0.3658)

    compute = 6 * 8e9 * 1.5e13
    optimal = math.sqrt(compute / (6 * 20))
    assert optimal == pytest.approx(77e9, rel=0.01)
    assert 20 * optimal == pytest.approx(1.55e12, rel=0.01)
    assert law(8e9, 1.5e13) == pytest.approx(2.022, abs=5e-4)
    assert law(optimal, 20 * optimal) == pytest.approx(1.968, abs=5e-4)
    assert "2.022 nats per token and the optimal one at 1.968: 0.054 more" in " ".join(PAGE.split())
    assert optimal / 8e9 == pytest.approx(10, rel=0.05)


def test_a_perplexity_is_the_exponential_of_its_nats() -> None:
    for row in table("Perplexity is the number of effective choices"):
        assert float(row["nats per token"]) == pytest.approx(math.log(float(row["perplexity"])), abs=6e-4)


@pytest.mark.parametrize(("others", "gradient"), [([0.999 / 255] * 255, 0.0020), ([0.999], 0.0040)])
def test_the_gradient_of_the_squared_error_at_a_confident_mistake(others: list[float], gradient: float) -> None:
    assert _gradient_of_squared_error([0.001, *others]) == pytest.approx(gradient, abs=5e-5)


def test_the_gradient_of_the_squared_error_with_one_likely_wrong_token() -> None:
    assert _gradient_of_squared_error([0.001, 0.9, *[0.099 / 254] * 254]) == pytest.approx(0.0036, abs=5e-5)


def _gradient_of_squared_error(probabilities: list[float]) -> float:
    """At the first logit, by a central difference of the loss."""
    logits = torch.tensor(probabilities, dtype=torch.float64).log()

    def loss(shift: float) -> float:
        shifted = logits.clone()
        shifted[0] += shift
        p = shifted.softmax(0)
        return float(((p - torch.eye(len(p), dtype=torch.float64)[0]) ** 2).sum())

    ours = squared_error(logits.unsqueeze(0), torch.zeros(1, dtype=torch.int64)).item()
    assert ours == pytest.approx(loss(0.0), rel=1e-5)
    return abs(loss(1e-4) - loss(-1e-4)) / 2e-4


@pytest.mark.parametrize(("smoothing", "floor"), [(0.1, 0.105), (0.3, 0.355)])
def test_label_smoothing_has_a_floor_even_where_the_next_token_is_known(smoothing: float, floor: float) -> None:
    """The best prediction is the smoothed target itself: Gibbs' inequality."""
    target = np.full(256, smoothing / 256)
    target[0] += 1 - smoothing
    assert -math.log(target[0]) == pytest.approx(floor, abs=5e-4)
    generator = np.random.default_rng(0)
    for other in generator.dirichlet(np.ones(256), size=20):
        assert -(target * np.log(other)).sum() > -(target * np.log(target)).sum()


def test_an_untied_model_has_fourteen_percent_more_parameters() -> None:
    tied, untied = (GPT(load_recipe(name).model).num_parameters() for name in ("drill", "untied_weights"))
    assert untied - tied == 256 * 64
    assert (untied - tied) / tied == pytest.approx(0.14, abs=0.005)


def test_an_arithmetic_coder_writes_a_text_in_its_cross_entropy_plus_at_most_two_bits() -> None:
    generator = np.random.default_rng(1)
    for num_tokens in (1, 10, 200):
        weights = generator.integers(1, 1000, size=(num_tokens, 20))
        text = [int(generator.choice(20, p=row / row.sum())) for row in weights]
        code = encode(text, weights.tolist())
        bits = -sum(math.log2(row[token] / row.sum()) for row, token in zip(weights, text, strict=True))
        assert bits <= len(code) <= bits + 2
        assert decode(code, weights.tolist()) == text


def encode(text: list[int], weights: list[list[int]]) -> str:
    """The shortest binary fraction whose interval lies within that of the text."""
    low, width = Fraction(0), Fraction(1)
    for token, row in zip(text, weights, strict=True):
        low, width = low + width * Fraction(sum(row[:token]), sum(row)), width * Fraction(row[token], sum(row))
    length = 0
    while True:
        first = math.ceil(low * 2**length)
        if Fraction(first + 1, 2**length) <= low + width:
            return f"{first:0{length}b}" if length else ""
        length += 1


def decode(code: str, weights: list[list[int]]) -> list[int]:
    value, text = Fraction(int(code or "0", 2), 2 ** len(code)), []
    for row in weights:
        bounds = [Fraction(sum(row[:token]), sum(row)) for token in range(len(row) + 1)]
        token = next(token for token, (_, end) in enumerate(pairwise(bounds)) if value < end)
        value = (value - bounds[token]) / (bounds[token + 1] - bounds[token])
        text.append(token)
    return text


SWITCH_COLUMNS: dict[str, Callable[[dict[str, Any]], float]] = {
    "loss": lambda row: float(row["loss"]),
    "held-out": lambda row: float(row["held_out_loss"]),
    "perplexity": lambda row: math.exp(row["held_out_loss"]),
    "bits/byte": lambda row: row["held_out_loss"] / math.log(2),
    "bits/character": lambda row: float(row["bits_per_character"]),
    "grad norm": lambda row: float(row["grad_norm"]),
    "log Z": lambda row: float(row["log_z"]),
}
TRAINER_PAGE = (DOCS / "trainer.md").read_text(encoding="utf-8")


def test_the_table_of_switches_is_that_of_the_results() -> None:
    measured = results("lab-switches")
    for row in table("Cross-entropy is compression", 1):
        own = [each for each in measured if each["recipe"] == row["recipe"].strip("`")]
        for column in row.keys() - {"recipe"}:
            assert_is_estimate(row[column], [SWITCH_COLUMNS[column](each) for each in own])


def test_the_table_of_the_trainers_page_is_that_of_the_results_of_seed_1() -> None:
    measured = {each["recipe"]: each for each in results("lab-switches") if each["seed"] == 1}
    rows = table("The lab: one switch at a time", page=TRAINER_PAGE)
    assert {row["recipe"].strip("`") for row in rows} == set(measured)
    for row in rows:
        for column in row.keys() - {"recipe"}:
            expected = SWITCH_COLUMNS[column](measured[row["recipe"].strip("`")])
            assert float(row[column]) == pytest.approx(expected, abs=5.1e-4)


def test_differences_of_switches_are_paired_by_seed() -> None:
    """`recipe`: difference +- standard error, wherever the page has such a sentence."""
    measured = {(each["recipe"], each["seed"]): each["held_out_loss"] for each in results("lab-switches")}
    seeds = sorted({seed for _, seed in measured})
    found = re.findall(r"`(\w+)`: ([+-]\d+\.\d+) \+- (\d+\.\d+)", " ".join(PAGE.split()))
    assert len(found) >= 4
    for recipe, mean, error in found:
        assert_is_estimate(f"{mean} +- {error}", [measured[recipe, s] - measured["drill", s] for s in seeds])


def test_the_table_of_temperatures_is_that_of_the_results() -> None:
    measured = results("lab-temperature")
    for row in table("Temperature changes the sampling and never the loss"):
        own = [each for each in measured if each["temperature"] == float(row["temperature"])]
        for column, field in (("loss", "loss"), ("entropy of the samples", "entropy"), ("true token", "hits")):
            assert_is_estimate(row[column], [each[field] for each in own])
    assert len({(each["seed"], each["loss"]) for each in measured}) == len({each["seed"] for each in measured})


def test_the_fitted_law_is_that_of_the_results() -> None:
    measured = results("lab-scaling")
    rows = table("Compute: 6ND, and what others spent", 1)
    compute, means = [], []
    for row in rows:
        own = [each for each in measured if each["width"] == int(row["width"])]
        n, d = own[0]["parameters"], own[0]["tokens"]
        assert (number(row["parameters"]), number(row["tokens"])) == (n, d)
        assert 20 <= d / n < 20.2
        assert float(row["FLOPs (6ND)"]) == pytest.approx(6 * n * d, rel=0.01)
        assert_is_estimate(row["held-out loss"], [each["held_out_loss"] for each in own])
        compute.append(6 * n * d)
        means.append(np.mean([each["held_out_loss"] for each in own]))
    design = np.stack([np.ones(len(rows)), np.log(compute)], axis=1)
    (_, slope), *_ = np.linalg.lstsq(design, np.log(means), rcond=None)
    (intercept, four), *_ = np.linalg.lstsq(design[:-1], np.log(means[:-1]), rcond=None)
    text = " ".join(section("Compute: 6ND, and what others spent").split())
    assert f"C^-{-slope:.3f}" in text
    assert f"predicts {math.exp(intercept + four * design[-1, 1]):.3f}" in text


def test_the_table_of_safeguards_is_that_of_the_results() -> None:
    measured = results("lab-unstable")
    rows = table("What prevents spikes")
    assert [row["safeguard"] for row in rows] == list(dict.fromkeys(each["safeguard"] for each in measured))
    for row in rows:
        own = [each for each in measured if each["safeguard"] == row["safeguard"]]
        counts = [len(each["jumps"]) for each in own]
        assert [int(count) for count in row["jumps by seed"].split(", ")] == counts
        assert_is_estimate(row["jumps"], [float(count) for count in counts])
        lost = [sum(jump["end"] - jump["begin"] for jump in each["jumps"]) for each in own]
        assert_is_estimate(row["steps lost"], [float(each) for each in lost])
        assert_is_estimate(row["final loss"], [each["final_loss"] for each in own])
        sizes = [jump["peak"] / jump["level"] for each in own for jump in each["jumps"]]
        assert row["largest jump"] == (f"{max(sizes):.1f} x" if sizes else "-")


def test_the_plots_of_the_page_exist() -> None:
    pictures = re.findall(r"\]\((pictures/[\w-]+\.svg)\)", PAGE)
    assert len(pictures) == 3
    assert all((DOCS / picture).read_text().startswith("<svg") for picture in pictures)


EXPOSURE_COLUMNS: dict[str, Callable[[dict[str, Any]], float]] = {
    "held-out loss": lambda model: model["held_out_loss"],
    "KL, true prefixes": lambda model: model["exposure"]["true_prefixes"]["mean"],
    "KL, own prefixes": lambda model: model["exposure"]["own_prefixes"]["mean"],
    "exposure bias": lambda model: model["exposure"]["bias"]["mean"],
    "true inputs": lambda model: model["true_inputs"],
}


def test_the_exposure_biases_are_those_of_the_raw_results_and_fit_the_chain() -> None:
    """The loss above the floor is the divergence after true prefixes: two measurements of the same thing."""
    known = {each["trained_with"]: each for each in results("lab-exposure")}
    chain = random_chain(2, 16)
    rows = table("Teacher forcing and exposure bias")
    assert [row["trained with"] for row in rows] == list(known)
    for row in rows:
        each = known[row["trained with"]]
        for column, value in EXPOSURE_COLUMNS.items():
            assert_is_estimate(row[column], [value(model) for model in each["models"]])
        assert each["loss_floor"] == pytest.approx(chain.loss_floor(32))
        excess = each["held_out_loss"]["mean"] - chain.loss_floor(32)
        assert excess == pytest.approx(each["true_prefixes"]["mean"], abs=0.04)


def test_the_own_texts_are_those_of_the_raw_results() -> None:
    measured = results("lab-own-text")
    text = " ".join(section("Teacher forcing and exposure bias").split())

    def each(name: str) -> str:
        first, second, third = (f"{row['own'][name]['mean']:.2f}" for row in measured)
        return f"{first}, {second} and {third}"

    assert f"an own text of {each('excess')} with the three seeds, each +- 0.06" in text
    assert f"a growth of {each('growth')}, each +- 0.13" in text
    found = re.search(
        r"fed on text, (\S+ \+- \S+) are the true ones in parallel, and (\S+ \+- \S+) in a roll-out", text
    )
    assert found is not None
    for cell, name in zip(found.groups(), ("parallel", "sequential"), strict=True):
        assert_is_estimate(cell, [row[name] for row in measured])
    errors = [(row["own"]["excess"]["standard_error"], row["own"]["growth"]["standard_error"]) for row in measured]
    assert np.round(errors, 2).tolist() == [[0.06, 0.13]] * 3


def test_the_exposure_bias_by_the_length_of_the_prefix_is_that_of_the_raw_results() -> None:
    (teacher_forcing,) = [each for each in results("lab-exposure") if each["trained_with"] == "teacher forcing"]
    text = " ".join(section("Teacher forcing and exposure bias").split())
    found = re.search(r"length of the prefix: (\S+ \+- \S+) after 3 tokens, (\S+ \+- \S+) after 32", text)
    assert found is not None
    for cell, length in zip(found.groups(), (3, 32), strict=True):
        measured = [model["exposure"] for model in teacher_forcing["models"]]
        own, true = ([each[name][length - 1] for each in measured] for name in ("own_prefixes_T", "true_prefixes_T"))
        assert_is_estimate(cell, [a - b for a, b in zip(own, true, strict=True)])
