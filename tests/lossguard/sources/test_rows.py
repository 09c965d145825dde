import math

from lossguard.sources.rows import Row, RowBuilder, StoredScalar, joined


def built(*scalars: tuple[str, float, int]) -> list[tuple[int, dict[str, float]]]:
    builder = RowBuilder()
    rows = [row for name, value, step in scalars for row in builder.add(name, value, step)]
    return [(row.step, row.values) for row in rows + builder.flush()]


def test_scalars_of_one_step_are_one_row() -> None:
    rows = built(("loss", 1.0, 0), ("lr", 0.1, 0), ("loss", 2.0, 1), ("lr", 0.2, 1))
    assert rows == [(0, {"loss": 1.0, "lr": 0.1}), (1, {"loss": 2.0, "lr": 0.2})]


def test_a_name_that_goes_back_begins_again_there() -> None:
    rows = built(("loss", 1.0, 7), ("lr", 0.1, 7), ("loss", 2.0, 5), ("lr", 0.1, 5), ("loss", 1.0, 6))
    assert [step for step, _ in rows] == [7, 5, 6]


def test_a_late_value_of_another_name_does_not_go_back() -> None:
    rows = built(("loss", 1.0, 0), ("loss", 1.0, 1), ("loss", 1.0, 2), ("eval_loss", 3.0, 1), ("loss", 1.0, 3))
    assert [step for step, _ in rows] == [0, 1, 2, 3]
    assert rows[2][1] == {"loss": 1.0, "eval_loss": 3.0}


def test_the_last_value_of_a_step_counts_and_nan_stays() -> None:
    ((_, values),) = built(("loss", 1.0, 0), ("loss", math.nan, 0))
    assert math.isnan(values["loss"])


def test_names_that_count_samples_are_left_out_beside_those_that_count_steps() -> None:
    rows = built(("lm loss", 1.0, 1), ("lm loss vs samples", 1.0, 256), ("lm loss", 2.0, 2))
    assert rows == [(1, {"lm loss": 1.0}), (2, {"lm loss": 2.0})]
    rows = built(("Train/Samples/train_loss", 1.0, 32), ("loss", 1.0, 1), ("loss", 1.0, 2))
    assert rows == [(1, {"loss": 1.0}), (2, {"loss": 1.0})]


def test_names_that_count_samples_are_kept_where_nothing_else_comes() -> None:
    rows = built(("Train/Samples/train_loss", 1.0, 32), ("Train/Samples/train_loss", 1.0, 64))
    assert [step for step, _ in rows] == [32, 64]


def test_what_came_late_is_returned_at_the_end() -> None:
    builder = RowBuilder()
    builder.add("loss", 1.0, 5)
    builder.flush()
    builder.add("eval_loss", 2.0, 5)
    assert builder.flush() == []
    assert builder.close() == [Row(5, None, {"eval_loss": 2.0})]
    assert builder.close() == []


def test_a_row_of_a_store_that_does_not_say_the_time_has_none() -> None:
    scalars = [StoredScalar(0.0, 0, "loss", 2.0), StoredScalar(7.0, 1, "loss", 1.0)]
    assert [row.time for row in joined(scalars)] == [None, 7.0]
