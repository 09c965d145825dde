"""The numbers of docs/lesson.md, computed again: from the formulas, and from the raw results in docs/measurements/."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard.figures.compute import PUBLISHED
from trainer.data.markov import random_chain

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


def test_the_arithmetic_of_perplexity_and_compute_holds() -> None:
    text = " ".join(PAGE.split())
    assert f"A loss of 2.15 nats is a perplexity of {math.exp(2.15):.2f}" in text
    assert f"a loss of ln V: {math.log(256):.2f} nats for bytes" in text
    sure = -(0.99 * math.log(0.99) + 0.01 * math.log(0.01))
    assert f"has {math.exp(sure):.2f} choices by the first and {1 / 0.01:.0f} by the second" in text
    assert f"log2(20 / 5) = {math.log2(20 / 5):.0f} bits a token" in text
    assert f"GPT-2 has {math.log2(8.63):.2f} on LAMBADA and GPT-3 {math.log2(3.00):.2f}" in text
    losses = math.log(100), math.log(20)
    assert f"falls from {losses[0]:.3f} to {losses[1]:.3f} nats, a ratio of {losses[0] / losses[1]:.3f}" in text
    times = [(losses[0] / losses[1]) ** (1 / exponent) for exponent in (0.114, 0.05)]
    assert f"{times[0]:.0f} times the compute, and by an exponent of 0.05" in text
    assert f"{round(times[1], -2):,.0f} times" in text
    gpt2 = next(row for row in table("Compute: 6ND, and what others spent") if row["model"].startswith("GPT-2"))
    tokens = 1.5e20 / (6 * number(gpt2["parameters N"]))
    assert f"the same formula with {tokens:.1e}".replace("e+10", "e10") in text
    assert f"{tokens / number(gpt2['tokens D']):.1f} passes" in text
    assert f"of which 6ND makes {6 * 2.8e11 * 1.3e13:.1e}".replace("e+25", "e25") in text
    worth = 2085.43 * (1.4e12**-0.3658 - 2e12**-0.3658)  # the refit's term of the tokens
    assert f"the 0.6e12 tokens by which Llama 2 70B exceeds 20 per parameter are worth {worth:.3f} nats" in text


def test_what_leaks_without_shift_or_mask_is_that_of_the_results() -> None:
    switches, leaks = results("lab-switches"), results("lab-leaks")
    for row in table("Why the shift is not the mask"):
        recipe = row["recipe"].strip("`")
        own = [each for each in switches if each["recipe"] == recipe]
        assert_is_estimate(row["training loss"], [each["loss"] for each in own])
        assert_is_estimate(row["held-out loss"], [each["held_out_loss"] for each in own])
        texts = [each["own_text"] for each in leaks if each["leak"] == ("none" if recipe == "drill" else recipe)]
        assert_is_estimate(row["own text"], texts)


def test_the_calibration_is_that_of_the_results() -> None:
    measured = results("lab-calibration")
    for row in table("Label smoothing"):
        own = [each for each in measured if each["smoothing"] == float(row["s"])]
        errors = [
            sum(count * abs(sure - right) for count, sure, right in each["bins"])
            / sum(count for count, _, _ in each["bins"])
            for each in own
        ]
        assert_is_estimate(row["calibration error"], errors)
        assert_is_estimate(row["loss where surest"], [each["surest_loss"] for each in own])
        floor = -math.log(1 - own[0]["smoothing"] + own[0]["smoothing"] / 256)
        assert float(row["floor"]) == pytest.approx(floor, abs=5e-4)


def test_what_one_objective_teaches_is_that_of_the_results() -> None:
    measured = results("lab-abilities")
    heading = "One objective, many abilities"
    for row in table(heading):
        place = measured[0]["steps"].index(int(row["steps"]))
        for kind in row.keys() - {"steps"}:
            assert_is_estimate(row[kind], [each["kinds"][kind][place] for each in measured])
    text = " ".join(section(heading).split())
    found = re.search(
        r"(\S+ \+- \S+) nats for the second byte, (\S+ \+- \S+) for the third, (\S+ \+- \S+) for the last", text
    )
    assert found is not None
    for cell, place in zip(found.groups(), (0, 1, -1), strict=True):
        assert_is_estimate(cell, [each["positions"][place] for each in measured])
    found = re.search(r"has a loss only (\S+ \+- \S+) lower", text)
    assert found is not None
    assert_is_estimate(found[1], [each["first_time"][-1] - each["copied"][-1] for each in measured])


def test_bytes_and_byte_pairs_compare_by_their_bits_per_byte() -> None:
    measured = results("lab-tokenizers") + [
        each | {"tokenizer": "bytes"} for each in results("lab-switches") if each["recipe"] == "drill"
    ]
    rows = table("From text to loss")
    assert [row["tokens"] for row in rows] == ["bytes", "1,024 byte pairs"]
    for row, name in zip(rows, ("bytes", "bpe:1024"), strict=True):
        own = [each for each in measured if each["tokenizer"] == name]
        assert_is_estimate(row["nats per token"], [each["held_out_loss"] for each in own])
        assert_is_estimate(row["perplexity"], [math.exp(each["held_out_loss"]) for each in own])
        assert_is_estimate(row["bits per byte"], [each["bits_per_byte"] for each in own])


def test_the_picture_of_the_pipeline_says_what_its_losses_say() -> None:
    picture = (DOCS / "pictures" / "pipeline.svg").read_text(encoding="utf-8")
    shown = re.search(r"mean loss ([\d.]+) nats per token, perplexity ([\d.]+)", picture)
    assert shown is not None
    assert float(shown[2]) == pytest.approx(math.exp(float(shown[1])), rel=1e-3)


def test_each_of_the_twelve_questions_leads_to_a_section() -> None:
    questions = (DOCS / "questions.md").read_text(encoding="utf-8")
    folded = re.findall(r"<summary>(\d+)\. .*?</details>", questions, re.DOTALL)
    assert folded == [str(number) for number in range(1, 13)]
    assert all("](lesson.md#" in each for each in questions.split("<details")[1:])
