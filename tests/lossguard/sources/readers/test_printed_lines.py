"""Lines that trainers have printed, as they stand in issues, records and documents of people who ran them."""

import math
import time

import pytest

from lossguard.sources.names import NameMap
from lossguard.sources.readers import printed_lines
from lossguard.sources.readers.printed_lines import KEYWORDS, MAX_LINE, PATTERNS, LogParser, own_pattern
from lossguard.sources.rows import Row
from lossguard.vocabulary.errors import ConfigurationError

MEGATRON = (
    b" [2026-05-28 13:01:07.645545] iteration       50/   45776 | consumed samples:        25600 |"
    b" elapsed time per iteration (ms): 263.6 | throughput per GPU (TFLOP/s/GPU): 177.2 |"
    b" learning rate: 1.092267E-04 | global batch size:   512 | lm loss: 8.184724E+00 | loss scale: 1.0 |"
    b" grad norm: 1.128 | number of skipped iterations:   0 | number of nan iterations:   0 |"
)
MEGATRON_DEEPSPEED = (
    b"[default3]: iteration       10/  292968 | consumed samples:        10240 | elapsed time per iteration (s):"
    b" 35.8651 | learning rate: 4.734E-06 | global batch size:  1024 | lm loss: 1.332803E+01 | loss scale: 4096.0 |"
    b" grad norm: 42.627 | number of skipped iterations:   0 | number of nan iterations:   0 | TFLOPs: 199.03 |"
)
MEGATRON_NAN = (
    b" iteration     5426/  250000 | consumed samples:        43408 | consumed tokens:     88899584 |"
    b" elapsed time per iteration (ms): 4247.9 | learning rate: 2.999E-04 | global batch size:     8 |"
    b" loss scale: 1.0 | grad norm: nan | number of skipped iterations:   0 | number of nan iterations:   0 |"
)
MEGATRON_SKIPPED = (
    b" [2025-04-13 23:41:12] iteration       10/    1000 | consumed samples:          160 | elapsed time per"
    b" iteration (ms): 1147.6 | learning rate: 0.000000E+00 | global batch size:    16 | loss scale: 8388608.0 |"
    b" number of skipped iterations:  10 | number of nan iterations:   0 |"
)
MEGATRON_VALIDATION = b" validation loss at iteration 1000 | lm loss value: 5.314413E+00 | lm loss PPL: 2.032451E+02 | "
TORCHTITAN = (
    b"[rank0]:[titan] 2026-05-18 16:04:46,338 - root - INFO - \x1b[31mstep: 14  \x1b[32mloss:  3.24405  "
    b"\x1b[38;5;208mgrad_norm:  0.8319  \x1b[36mmemory:  9.46GiB(64.99%)  \x1b[34mtps: 7,282  tflops: 0.52  mfu: 0.17%"
)
NANOCHAT = (
    b"step 00500/05568 (8.98%) | loss: 10.397663 | lrm: 0.03 | dt: 77971.27ms | tok/sec: 13,448 | bf16_mfu: 2.57 |"
    b" epoch: 1 pq: 0 rg: 8 | total time: 0.00m"
)
LLMC = (
    b"step 19559/19560 | loss 3.314194 (+0.19z)| norm 0.2776 (+3.74z)| lr 1.79e-11 | 4339.91 ms | 31.1% bf16 MFU |"
    b" 124285 tok/s"
)
LLMC_PYTHON = b"step    1/10 | train loss 5.270007 | norm 30.1234 | lr 1.00e-04 | (2494.79 ms | 1642 tok/s)"
LITGPT = (
    b"Epoch 1 | iter 512 step 64 | loss train: 10.441, val: n/a | iter time: 375.20 ms (step)"
    b" remaining time: 1 day, 2:02:03"
)
WORD_LANGUAGE_MODEL = b"| epoch   5 |    61/  121 batches | lr 20.00 | ms/batch 135.62 | loss  5.65 | ppl   284.18"
TORCHTITAN_IN_COLOURS = TORCHTITAN.replace(b"loss:", b"\x1b[Kloss:")

LINES = [
    (MEGATRON, "Megatron-LM", 50, {"loss": 8.184724, "grad_norm": 1.128, "lr": 1.092267e-4, "step_seconds": 0.2636}),
    (MEGATRON_DEEPSPEED, "Megatron-LM", 10, {"loss": 13.32803, "step_seconds": 35.8651, "skipped": 0.0}),
    (MEGATRON_NAN, "Megatron-LM", 5426, {"tokens": 88899584.0, "lr": 2.999e-4}),
    (MEGATRON_SKIPPED, "Megatron-LM", 10, {"skipped": 10.0, "loss scale": 8388608.0}),
    (MEGATRON_VALIDATION, "Megatron-LM", 1000, {"held_out_loss": 5.314413}),
    (TORCHTITAN, "torchtitan", 14, {"loss": 3.24405, "grad_norm": 0.8319, "mfu": 0.0017, "memory": 9.46}),
    (TORCHTITAN_IN_COLOURS, "torchtitan", 14, {"loss": 3.24405}),
    (b"validate step: 20  loss:  7.1000  memory: 1.00GiB(2.00%)  tps: 7", "torchtitan", 20, {"held_out_loss": 7.1}),
    (b"iter 10: loss 3.1462, time 13.86ms, mfu 26.88%", "nanoGPT", 10, {"loss": 3.1462, "mfu": 0.2688}),
    (b"iter 0: loss 4.2654, time 13500.54ms, mfu -100.00%", "nanoGPT", 0, {"loss": 4.2654, "step_seconds": 13.50054}),
    (b"step 250: train loss 1.9688, val loss 2.0702", "nanoGPT", 250, {"held_out_loss": 2.0702}),
    (
        b"step:250/1490 val_loss:4.5113 train_time:7876ms step_avg:31.50ms",
        "modded-nanogpt",
        250,
        {"held_out_loss": 4.5113, "step_avg": 31.5},
    ),
    (
        b"step:126/1875 train_loss:5.9012 train_time:17236ms step_avg:148.59ms",
        "modded-nanogpt",
        126,
        {"loss": 5.9012, "train_time": 17236.0},
    ),
    (b"step:1/1490 train_time:66ms step_avg:65.84ms", "modded-nanogpt", 1, {"step_avg": 65.84}),
    (NANOCHAT, "nanochat", 500, {"loss": 10.397663, "tokens_per_second": 13448.0, "step_seconds": 77.97127, "rg": 8.0}),
    (b"Step 00250 | Validation bpb: 0.989483", "nanochat", 250, {"held_out_bits_per_byte": 0.989483}),
    (LLMC, "llm.c", 19559, {"loss": 3.314194, "grad_norm": 0.2776, "lr": 1.79e-11, "tokens_per_second": 124285.0}),
    (LLMC_PYTHON, "llm.c", 1, {"loss": 5.270007, "step_seconds": 2.49479, "tokens_per_second": 1642.0}),
    (b"step 0: train loss 5.356082 (took 19.452000 ms)", "llm.c", 0, {"loss": 5.356082, "step_seconds": 0.019452}),
    (b"val loss 10.609911", "llm.c", 0, {"held_out_loss": 10.609911}),
    (b"s:250 tel:6.3097", "llm.c", 250, {"held_out_loss": 6.3097}),
    (b"s:0 trl:11.0095 lr:0.000001 norm:15.95", "llm.c", 0, {"loss": 11.0095, "lr": 1e-6, "grad_norm": 15.95}),
    (LITGPT, "litgpt", 64, {"loss": 10.441, "iter_time": 0.3752}),
    (b"iter 512: val loss 10.3417, val time: 5432.10 ms", "litgpt", 0, {"held_out_loss": 10.3417}),
    (WORD_LANGUAGE_MODEL, "word_language_model", 4 * 121 + 61, {"loss": 5.65, "lr": 20.0, "step_seconds": 0.13562}),
]


def read(line: bytes) -> tuple[str, Row]:
    """The trainer that prints such a line, and its row under our names."""
    found = [(each.config["trainer"], row) for each in PATTERNS if (row := LogParser(each).parse(line)) is not None]
    ((trainer, row),) = found  # one pattern alone fits
    return trainer, Row(row.step, row.time, NameMap().mapped(row.values))


@pytest.mark.parametrize(("line", "trainer", "step", "expected"), LINES)
def test_a_line_is_read_by_the_pattern_of_its_trainer_alone(
    line: bytes, trainer: str, step: int, expected: dict[str, float]
) -> None:
    found, row = read(line)
    assert (found, row.step) == (trainer, step)
    assert {name: row.values.get(name) for name in expected} == pytest.approx(expected)
    assert "loss" in row.values or "loss" not in expected
    assert any(word in line for word in KEYWORDS) or "step_avg" in expected


def test_a_loss_that_megatron_leaves_out_is_nan_unless_the_iterations_were_skipped() -> None:
    assert math.isnan(read(MEGATRON_NAN)[1].values["loss"])
    assert "loss" not in read(MEGATRON_SKIPPED)[1].values


def test_times_are_local_and_lines_without_a_time_have_none() -> None:
    assert read(MEGATRON)[1].time == pytest.approx(1779973267.645545, abs=15 * 3600)
    assert read(NANOCHAT)[1].time is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"step 3",
        b"loading checkpoint at iteration 3",
        b"iteration 3: done",
        b"\xff\xfe",
        b"iter 99999999999999999999: loss 2.5, time 1ms",
        b"step: %s  loss: 2.5" % (b"7" * 5000),
    ],
)
def test_other_lines_are_none(line: bytes) -> None:
    assert [each for each in PATTERNS if LogParser(each).parse(line) is not None] == []


def test_a_slower_rank_that_prints_the_step_before_again_is_no_rewind() -> None:
    parser = LogParser(PATTERNS[1])
    one, two = (
        TORCHTITAN.replace(b"step: 14", b"step: %d" % step).replace(b"3.24", b"%d.24" % step) for step in (3, 4)
    )
    assert [row and row.step for row in map(parser.parse, [one, two, one, two])] == [3, 4, None, 4]


def parser_of(trainer: str) -> LogParser:
    return LogParser(next(each for each in PATTERNS if each.config["trainer"] == trainer))


def test_a_micro_batch_of_litgpt_that_follows_a_step_is_no_second_row_of_it() -> None:
    lines = [
        LITGPT.replace(b"step 64", b"step %d" % step).replace(b"10.441", b"%d.5" % loss)
        for step, loss in [(0, 9), (1, 8), (1, 7), (1, 6), (2, 5)]
    ]
    rows = [row for row in map(parser_of("litgpt").parse, lines) if row is not None]
    assert [(row.step, row.values["loss train"]) for row in rows] == [(0, 9.5), (1, 8.5), (2, 5.5)]


def test_batches_of_word_language_model_are_counted_across_epochs() -> None:
    parse = parser_of("word_language_model").parse
    end = b"| end of epoch   1 | time: 69.83s | valid loss  5.49 | valid ppl   241.95"
    assert parse(end) is None  # nobody has said how many batches an epoch has
    lines = [WORD_LANGUAGE_MODEL.replace(b"epoch   5", b"epoch   %d" % epoch) for epoch in (1, 2)]
    rows = [parse(each) for each in (lines[0], end, lines[1])]
    assert [row and row.step for row in rows] == [61, 121, 182]
    assert rows[1] is not None
    assert rows[1].values == {"valid loss": 5.49}


HOSTILE = (
    *((b" iteration 1/ 2 |", b"a b"), (b" iteration ", b" "), (b"", b"iteration 1/ 2 |"), (b"step: 1 loss: ", b"1")),
    *((b"", b"validation loss at iteration 1 "), (b"step: 1 loss: 1 ", b"a"), (b"step: 1 loss: 1 ", b"a:")),
    *((b"", b"step: 1 "), (b"iter 1: loss ", b"1,"), (b"iter 1: loss 1", b".1"), (b"step:1/2 train_time:1 ", b"a")),
    *((b"step 1/2 (1%) | loss: 1 |", b"a/"), (b"step 1/2 (1%) | loss: 1 |", b"a b "), (b"step 1/2 (", b"1.")),
    *((b"", b"step 1/2 | loss 1 ("), (b"step 1/2 | loss 1 | norm 1 | lr 1 |", b"1"), (b"val loss 1", b" ")),
    *((b"s:1 trl:", b"1"), (b"Epoch 1 | iter ", b"1"), (b"| epoch ", b" "), (b"", b"\x1b["), (b"", b"2026-05-28 13:0")),
)
"""The beginning of a line, and what comes again and again behind it."""


def test_the_time_for_a_line_is_linear_in_its_length() -> None:
    for begin, again in HOSTILE:
        line = (begin + again * MAX_LINE)[: MAX_LINE - 1] + b"x"
        before = time.process_time()
        for pattern in PATTERNS:
            LogParser(pattern).parse(line)
        assert time.process_time() - before < 0.5, line[:40]


def test_a_line_that_is_longer_than_any_log_line_is_not_read() -> None:
    line = b"iter 10: loss 3.1462, time 13.86ms, mfu 26.88%"
    assert parser_of("nanoGPT").parse(line.ljust(MAX_LINE)) is not None
    assert parser_of("nanoGPT").parse(line.ljust(MAX_LINE + 1)) is None


PATTERN = r"step:(?P<step>\d+).*loss:(?P<loss>\S+)"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (PATTERN, b"[x] step:12/100 foo loss:2.25, 3 ms", Row(12, None, {"loss": 2.25})),
        (PATTERN, b"\x1b[31mstep:\x1b[0m12 loss:nan", Row(12, None, {"loss": math.nan})),
        (PATTERN, b"step:12 loss:none", None),
        (PATTERN, b"step:1%s loss:1" % (b"0" * 30), None),
        (r"(?P<step>[\d,]+) .* (?P<loss>\S+)(?: lr (?P<lr>\S+))?", b"1,200 | 3.5", Row(1200, None, {"loss": 3.5})),
        (
            r"Schritt (?P<step>\d+): (?P<loss>\S+) \u00b1",
            "Schritt 3: 1e-2 \u00b1".encode(),
            Row(3, None, {"loss": 0.01}),
        ),
    ],
)
def test_a_line_is_read_by_the_users_own_pattern(text: str, line: bytes, expected: Row | None) -> None:
    assert repr(LogParser(own_pattern(text, NameMap())).parse(line)) == repr(expected)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("step:(", r"--pattern 'step:\(' is no regular expression: missing \)"),
        (r"(?P<loss>\S+)", r"has no group named step: write \(\?P<step>\\d\+\)"),
        (r"(?P<step>\d+) (?P<err>\S+)", r"has no group named loss: write .* or say which group is it with --map"),
        (r"(?P<step>\d+) (?P<val_loss>\S+)", "has no group named loss"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_one_clear_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        own_pattern(text, NameMap())


@pytest.mark.parametrize("group", ["train_loss", "err"])
def test_the_groups_of_a_pattern_are_named_as_in_any_source(group: str) -> None:
    names = NameMap.parse(["loss=err"] if group == "err" else [])
    row = LogParser(own_pattern(rf"(?P<step>\d+) (?P<{group}>\S+)", names)).parse(b"3 2.5")
    assert row is not None
    assert names.mapped(row.values) == {"loss": 2.5}


SLOW = r"(?P<step>\d+) (?P<loss>(a+)+)b"


def test_a_pattern_that_never_ends_on_a_line_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(printed_lines, "MAX_SECONDS", 0.01)
    parse = LogParser(own_pattern(SLOW, NameMap())).parse
    assert [parse(b"3 " + b"a" * 1000) for _ in range(printed_lines.MAX_SLOW_LINES)] == [None] * 8
    assert [each.message for each in caplog.records] == [
        "--pattern takes more than 0.01 s for a line, which is not read: make it simpler",
        "--pattern was too slow for 8 lines: no more lines are read",
    ]
