import math
from pathlib import Path

import pytest

from lossguard.run.run import Run
from lossguard.sources.names import NameMap
from lossguard.sources.recorder import RunRecorder, recognised
from lossguard.sources.rows import Row
from lossguard.vocabulary.source_facts import SourceFacts
from tests.lossguard.recorded import offline, records, steps


def write(run: Run, rows: list[Row]) -> RunRecorder:
    recorder = RunRecorder(run)
    for row in rows:
        recorder.write_row(row)
    return recorder


def test_rows_are_recorded_under_our_names_at_their_own_times(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        write(run, [Row(0, 100.0, {"train/loss": 3.0, "self": 1.0, "step": 0.5}), Row(10, 101.5, {"train/loss": 2.0})])
    assert steps(run) == [(0, {"loss": 3.0, "self": 1.0, "step": 0.5}), (10, {"loss": 2.0})]
    assert [each["time"] for each in records(run) if "metrics" in each] == [100.0, 101.5]


def test_a_step_that_goes_back_opens_a_segment(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        write(run, [Row(step, 100.0 + k, {"loss": 1.0}) for k, step in enumerate((0, 1, 2, 1))])
    segments = [(each["fork_step"], each["reason"], each["time"]) for each in records(run) if "segment" in each]
    assert segments == [(0, "start", 100.0), (1, "rewind", 103.0)]


def test_nan_stays_and_counts_are_whole(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        write(run, [Row(0, None, {"lm loss": math.nan, "consumed_tokens": 4096.0})])
    assert steps(run) == [(0, {"loss": "NaN", "tokens": 4096})]


def test_a_time_that_is_none_costs_the_row_and_not_the_run(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        write(run, [Row(0, -5.0, {"loss": 1.0}), Row(1, 5.0, {"loss": 1.0})])
    assert [step for step, _ in steps(run)] == [1]


def test_values_that_come_late_join_the_next_row(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        rows = [(10, {"loss": 1.0}), (10, {"eval_loss": 2.0}), (20, {"loss": 0.9}), (10, {"val/acc": 0.5})]
        recorder = write(run, [Row(step, 1.0, values) for step, values in rows])
        assert steps(run) == [(10, {"loss": 1.0}), (20, {"held_out_loss": 2.0, "loss": 0.9})]
        recorder.flush()
    assert steps(run)[-1] == (21, {"val/acc": 0.5})
    assert len([each for each in records(run) if "segment" in each]) == 1


def test_tokens_that_fall_are_no_count_of_all_tokens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with offline(tmp_path) as run:
        rows = enumerate([512.0, 480.0, 512.0, 300.0])
        write(run, [Row(step, 1.0, {"loss": 1.0, "num_tokens": count}) for step, count in rows])
    assert [sorted(metrics) for _, metrics in steps(run)] == [["loss", "tokens"], *[["loss", "num_tokens"]] * 3]
    assert caplog.text.count("num_tokens is no count of all tokens so far: it went from 512 to 480 at step 1") == 1


def test_tokens_that_stay_the_same_are_those_of_a_batch(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        write(run, [Row(step, 1.0, {"loss": 1.0, "tokens": 512.0}) for step in range(8)])
    assert [sorted(metrics)[-1] for _, metrics in steps(run)] == ["tokens"] * 4 + ["loss"] * 4
    assert steps(run)[-1][1]["logged/tokens"] == 512


def test_a_stride_is_declared_before_the_row_that_shows_it(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        recorder = write(run, [Row(10 * k, 100.0 + k, {"train/loss": 3.0 - 0.01 * k}) for k in range(40)])
    (event,) = [each for each in records(run) if "event" in each]
    assert (event["step"], event["time"], event["details"]["stride"]) == (141, 115.0, 10)
    assert "every 10th step" in recorder.preview.text()


def test_a_loss_of_exactly_zero_says_that_nan_is_filtered(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        write(run, [Row(k, 1.0, {"loss": 0.0 if k == 5 else 3.0}) for k in range(8)])
    kinds = [each.get("event", each.get("step")) for each in records(run) if "event" in each or "metrics" in each]
    assert kinds == [0, 1, 2, 3, 4, "source", 5, 6, 7]


def test_the_rows_of_a_run_that_is_over_are_recognised_beforehand() -> None:
    rows = [Row(5 * k, None, {"train/loss": 3.0}) for k in range(40)]
    assert recognised(rows, NameMap(), SourceFacts(averaged=True)) == SourceFacts(stride=5, averaged=True)


def test_names_beyond_the_limit_of_a_run_are_left_out_and_its_rows_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A collector would refuse every row that holds one of them."""
    with offline(tmp_path) as run:
        many = {f"layer.{number}": 1.0 for number in range(1500)}
        write(run, [Row(0, 1.0, many), Row(1, 1.0, many | {"train/loss": 2.5})])
    rows = steps(run)
    assert [len(metrics) < 1000 for _, metrics in rows] == [True, True]
    assert rows[1][1]["loss"] == 2.5
    assert caplog.text.count("more names than the 1,000 of a run") == 1
