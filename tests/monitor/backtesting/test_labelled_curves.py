"""The score of alarms on labelled curves."""

import json
from pathlib import Path

import numpy as np
import pytest

from monitor.backtesting.labelled_curves import LabelledCurve, Score, our_alarms, read_folder, score, total
from monitor.detection import Rows


def curve(kind: str = "spiky", onsets: tuple[int, ...] = (), ambiguous: tuple[int, ...] = ()) -> LabelledCurve:
    """400 rows, ten steps apart."""
    return LabelledCurve("a", Rows.of(10 * np.arange(400), loss=np.full(400, 2.0)), kind, onsets, ambiguous)


def test_an_onset_is_found_by_an_alarm_at_most_twelve_rows_after_it() -> None:
    assert score(curve(onsets=(1000,)), [1120]).found == 1
    assert score(curve(onsets=(1000,)), [1130]).found == 0


def test_an_episode_that_ended_more_than_two_rows_before_the_onset_does_not_find_it() -> None:
    assert score(curve(onsets=(1000,)), [980]).found == 1
    assert score(curve(onsets=(1000,)), [970]).found == 0


def test_alarms_closer_than_twenty_rows_are_one_episode() -> None:
    assert score(curve("clean"), [500, 690, 880]).false == 1
    assert score(curve("clean"), [500, 700]).false == 2


def test_an_alarm_near_an_ambiguous_step_is_neither_found_nor_false() -> None:
    assert score(curve("clean", ambiguous=(1000,)), [1010]) == Score(0, 0, 0, 400)


def test_only_clean_curves_count_false_alarms() -> None:
    curves = [curve("clean"), curve("spiky", onsets=(1000,))]
    both = total(curves, lambda _: [2000])
    assert (both.found, both.onsets, both.false, both.rows) == (0, 1, 1, 400)
    assert both.rate == 25.0


def test_a_folder_is_read_by_its_labels_as_far_as_the_files_exist(tmp_path: Path) -> None:
    label = {"kind": "clean", "onsets": [], "ambiguous": []}
    (tmp_path / "labels.json").write_text(json.dumps({"a": label, "missing": label}))
    (tmp_path / "a.csv").write_text("step,loss\n1,2.0\n2,2.0\n")
    assert [one.name for one in read_folder(tmp_path)] == ["a"]


CURVES = Path(__file__).resolve().parents[4] / "shared" / "curves"


@pytest.mark.skipif(not (CURVES / "labels.json").exists(), reason="the labelled curves are not there")
@pytest.mark.slow
def test_nine_in_ten_labelled_onsets_are_found_at_three_false_alarms_in_100000_rows() -> None:
    curves = read_folder(CURVES)
    for which in ("detected_step", "onset_step"):
        score = total(curves, lambda curve, which=which: our_alarms(curve, which=which))  # type: ignore[misc]
        assert score.recall >= 0.9
        assert score.rate <= 0.3
