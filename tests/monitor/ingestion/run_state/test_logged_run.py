"""What is known of a run's metrics survives the store: names, last values, segments."""

import json
import math

from monitor.ingestion.run_state.logged_run import LoggedMetric, LoggedRun


def test_names_are_chosen_once_and_stay_after_a_restart() -> None:
    logged = LoggedRun()
    logged.learn(["train/loss", "accuracy"])
    logged.learn(["train_loss"])
    again = LoggedRun.from_json(json.loads(json.dumps(logged.to_json())))
    for one in (logged, again):
        assert [one.name_of(key) for key in ("train/loss", "train_loss", "accuracy")] == [
            "loss",
            "train_loss",
            "accuracy",
        ]
        assert one.num_names == 3


def test_the_last_value_is_that_of_the_highest_step() -> None:
    logged = LoggedRun()
    for metric in (("loss", 1.0, 10, 5), ("loss", math.nan, 20, 5), ("loss", 3.0, 30, 4)):
        logged.note_latest(LoggedMetric(*metric))
    again = LoggedRun.from_json(json.loads(json.dumps(logged.to_json(), allow_nan=False)))
    assert math.isnan(again.latest["loss"].value)
    assert again.latest["loss"][2:] == (20, 5)


def test_a_time_belongs_to_the_segment_that_had_begun() -> None:
    logged = LoggedRun()
    assert logged.segment_at(5.0) is None
    logged.begin_segment(0, 10.0)
    logged.begin_segment(1, 20.0)
    assert [logged.segment_at(time) for time in (5.0, 10.0, 19.0, 20.0, 99.0)] == [0, 0, 0, 1, 1]
