"""The pictures of the docs."""

from demo.screenshots import PAGES, PICTURES, REPORT, shown


def test_every_picture_that_the_docs_show_is_there_and_no_other() -> None:
    assert sorted(path.name for path in PICTURES.glob("*.png")) == sorted(picture.file for picture in shown())


def test_every_page_is_shown() -> None:
    assert {picture.page for picture in shown()} == {*PAGES, REPORT}
