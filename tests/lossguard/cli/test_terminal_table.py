from lossguard.cli.terminal import Column, Text, cut, table, width_of

COLUMNS = (Column(title="NAME", min_width=6), Column(title="STEP", right=True), Column(title="NOTE", rank=1))
ROWS = [[Text("a-very-long-name"), Text("12"), Text("kept?")], [Text("損失損失損失損失"), Text("3"), Text("")]]


def lines(width: int | None) -> list[str]:
    return ["".join(piece.text for piece in line) for line in table(COLUMNS, ROWS, width)]


def test_in_a_file_nothing_is_cut() -> None:
    assert lines(None)[1] == "a-very-long-name    12  kept?"


def test_the_widest_text_that_may_be_cut_is_cut_first() -> None:
    assert lines(24)[1] == "a-very-lon…    12  kept?"
    assert all(width_of(line) == 24 for line in lines(24))


def test_then_the_least_important_column_is_left_out() -> None:
    shown = lines(14)
    assert shown[0] == "NAME      STEP"
    assert shown[1] == "a-very-…    12"
    assert all(width_of(line) <= 14 for line in shown)


def test_a_table_without_rows_is_its_head() -> None:
    assert len(table(COLUMNS, [], 80)) == 1


def test_a_cut_text_ends_with_an_ellipsis_and_fits() -> None:
    assert [cut(text, 4) for text in ("abcd", "abcde", "損失損")] == ["abcd", "abc…", "損…"]
