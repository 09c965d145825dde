from lossguard.sources.names import NameMap
from lossguard.sources.recognition import PREVIEW_ROWS, Preview


def preview(names: NameMap, rows: list[dict[str, float]]) -> str:
    made = Preview(names)
    for step, values in enumerate(rows):
        names.mapped(values)
        made.add(10 * step, values)
    return made.text()


def test_the_table_says_what_each_name_became() -> None:
    text = preview(NameMap(), [{"train/loss": 3.0, "epoch": 0.5}, {"train/loss": 2.5}])
    assert text.splitlines() == [
        "the first 2 rows, steps 0 to 10:",
        "  name in the source  recorded as     first  last  rows",
        "  train/loss          loss                3   2.5     2",
        "  epoch               (its own name)    0.5   0.5     1",
    ]


def test_a_source_without_a_loss_says_how_to_name_it() -> None:
    assert "--map loss=NAME" in preview(NameMap(), [{"objective": 3.0}])


def test_an_override_that_never_came_is_one_sentence() -> None:
    text = preview(NameMap({"loss": "train/ce"}), [{"train/loss": 3.0}])
    assert "--map loss=train/ce: no such name in the first row; names there: train/loss." in text


def test_many_names_are_counted_and_no_rows_is_said() -> None:
    assert "and 8 more under their own names" in preview(NameMap(), [{f"layer_{k}": 1.0 for k in range(20)}])
    assert Preview(NameMap()).text() == "no rows yet\n"


def test_it_is_complete_after_so_many_rows() -> None:
    made = Preview(NameMap())
    for step in range(PREVIEW_ROWS):
        assert not made.is_complete
        made.add(step, {"loss": 1.0})
    assert made.is_complete
