import math
from pathlib import Path

from lossguard.sources.facts import SourceFacts
from lossguard.sources.names import NameMap
from lossguard.sources.recorder import RunRecorder
from lossguard.sources.rows import Row
from tests.lossguard.recorded import offline, records, steps


def test_rows_are_recorded_under_our_names_at_their_own_times(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        recorder = RunRecorder(run)
        recorder.write(
            [Row(0, 100.0, {"train/loss": 3.0, "self": 1.0, "step": 0.5}), Row(10, 101.5, {"train/loss": 2.0})]
        )
    assert steps(run) == [(0, {"loss": 3.0, "self": 1.0, "step": 0.5}), (10, {"loss": 2.0})]
    assert [each["time"] for each in records(run) if "metrics" in each] == [100.0, 101.5]
    assert [each["time"] for each in records(run) if "segment" in each] == [100.0]


def test_a_step_that_goes_back_opens_a_segment(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        RunRecorder(run).write([Row(step, 100.0 + k, {"loss": 1.0}) for k, step in enumerate((0, 1, 2, 1))])
    segments = [each for each in records(run) if "segment" in each]
    assert [(each["fork_step"], each["reason"], each["time"]) for each in segments] == [
        (0, "start", 100.0),
        (1, "rewind", 103.0),
    ]


def test_nan_stays_and_counts_are_whole(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        RunRecorder(run).write([Row(0, None, {"lm loss": math.nan, "consumed_tokens": 4096.0})])
    assert steps(run) == [(0, {"loss": "NaN", "tokens": 4096})]


def test_what_is_known_of_the_source_is_declared_once(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        recorder = RunRecorder(run, NameMap(), SourceFacts(stride=10, averaged=True))
        recorder.write([Row(0, 1.0, {"loss": 1.0})])
    (event,) = [each for each in records(run) if "event" in each]
    assert event["event"] == "source"
    assert SourceFacts.from_details(event["details"]) == SourceFacts(stride=10, averaged=True)


def test_a_time_that_is_none_costs_the_row_and_not_the_run(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        RunRecorder(run).write([Row(0, -5.0, {"loss": 1.0}), Row(1, 5.0, {"loss": 1.0})])
    assert [step for step, _ in steps(run)] == [1]
