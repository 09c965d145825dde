"""Lines that trainers have printed, as they stand in issues and documents of people who ran them."""

import math
from pathlib import Path

import pytest

from lossguard.sources.names import NameMap
from lossguard.sources.readers.text_logs import PATTERNS, LogParser, runs_in
from lossguard.sources.rows import Row

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


def read(line: bytes) -> tuple[str, Row]:
    """The trainer that prints such a line, and its row under our names."""
    found = [(each.trainer, row) for each in PATTERNS if (row := each.make()(line)) is not None]
    ((trainer, row),) = found  # one pattern alone fits
    return trainer, Row(row.step, row.time, NameMap().mapped(row.values))


@pytest.mark.parametrize(
    ("line", "trainer", "step", "expected"),
    [
        (
            MEGATRON,
            "Megatron-LM",
            50,
            {"loss": 8.184724, "grad_norm": 1.128, "lr": 1.092267e-4, "step_seconds": 0.2636},
        ),
        (MEGATRON_DEEPSPEED, "Megatron-LM", 10, {"loss": 13.32803, "step_seconds": 35.8651, "skipped": 0.0}),
        (MEGATRON_NAN, "Megatron-LM", 5426, {"tokens": 88899584.0, "lr": 2.999e-4}),
        (MEGATRON_SKIPPED, "Megatron-LM", 10, {"skipped": 10.0, "loss scale": 8388608.0}),
        (MEGATRON_VALIDATION, "Megatron-LM", 1000, {"held_out_loss": 5.314413}),
        (TORCHTITAN, "torchtitan", 14, {"loss": 3.24405, "grad_norm": 0.8319, "mfu": 0.0017, "memory": 9.46}),
        (b"validate step: 20  loss:  7.1000  memory: 1.00GiB(2.00%)  tps: 7", "torchtitan", 20, {"held_out_loss": 7.1}),
        (b"iter 10: loss 3.1462, time 13.86ms, mfu 26.88%", "nanoGPT", 10, {"loss": 3.1462, "mfu": 0.2688}),
        (
            b"iter 0: loss 4.2654, time 13500.54ms, mfu -100.00%",
            "nanoGPT",
            0,
            {"loss": 4.2654, "step_seconds": 13.50054},
        ),
        (b"step 250: train loss 1.9688, val loss 2.0702", "nanoGPT", 250, {"held_out_loss": 2.0702}),
        (NANOCHAT, "nanochat", 500, {"loss": 10.397663, "tokens_per_second": 13448.0, "step_seconds": 77.97127}),
        (b"Step 00250 | Validation bpb: 0.989483", "nanochat", 250, {"held_out_bits_per_byte": 0.989483}),
        (LLMC, "llm.c", 19559, {"loss": 3.314194, "grad_norm": 0.2776, "lr": 1.79e-11, "tokens_per_second": 124285.0}),
        (b"val loss 10.609911", "llm.c", 0, {"held_out_loss": 10.609911}),
    ],
)
def test_a_line_is_read_by_the_pattern_of_its_trainer_alone(
    line: bytes, trainer: str, step: int, expected: dict[str, float]
) -> None:
    found, row = read(line)
    assert (found, row.step) == (trainer, step)
    assert {name: row.values.get(name) for name in expected} == pytest.approx(expected)
    assert "loss" in row.values or "loss" not in expected


def test_a_loss_that_megatron_leaves_out_is_nan_unless_the_iterations_were_skipped() -> None:
    assert math.isnan(read(MEGATRON_NAN)[1].values["loss"])
    assert "loss" not in read(MEGATRON_SKIPPED)[1].values


def test_times_are_local_and_lines_without_a_time_have_none() -> None:
    assert read(MEGATRON)[1].time == pytest.approx(1779973267.645545, abs=15 * 3600)
    assert read(NANOCHAT)[1].time is None


@pytest.mark.parametrize(
    "line", [b"", b"step 3", b"loading checkpoint at iteration 3", b"iteration 3: done", b"\xff\xfe"]
)
def test_other_lines_are_none(line: bytes) -> None:
    assert [each.trainer for each in PATTERNS if each.make()(line) is not None] == []


def test_a_slower_rank_that_prints_the_step_before_again_is_no_rewind() -> None:
    parser = LogParser(PATTERNS[1])
    one, two = (
        TORCHTITAN.replace(b"step: 14", b"step: %d" % step).replace(b"3.24", b"%d.24" % step) for step in (3, 4)
    )
    assert [row and row.step for row in map(parser.parse, [one, two, one, two])] == [3, 4, None, 4]


def test_a_log_is_a_run_and_says_what_its_loss_is(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing of the kind")
    (tmp_path / "image.log").write_bytes(b"\x89PNG\0\0" + MEGATRON)
    (tmp_path / "speedrun.log").write_bytes(b"a banner\n" + NANOCHAT + b"\n" + NANOCHAT[:60])
    (run,) = runs_in(tmp_path)
    assert (run.name, run.config, run.facts.smoothing) == ("speedrun", {"trainer": "nanochat"}, 0.9)
    assert [row.step for row in run.rows()] == [500]


def test_a_step_that_no_run_can_have_is_left_out(tmp_path: Path) -> None:
    lines = [b"iter %d: loss 2.5, time 13.86ms, mfu 26.88%%\n" % step for step in (0, 2**53, 1)]
    (tmp_path / "train.log").write_bytes(b"".join(lines))
    (run,) = runs_in(tmp_path)
    assert [row.step for row in run.rows()] == [0, 1]
