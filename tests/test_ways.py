"""The ways of a metric, an order, a report and a page enter the files of docs/reference/ways.md, and no more."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests import ways

pytestmark = pytest.mark.slow(2)

MAX_FILES = {
    "metric": 9,
    "order_into_guard": 30,
    "order_into_trainer": 34,
    "report": 62,
    "page": 43,
}
"""Files of each way. A change that shortens a way lowers its number; none raises it."""


def check(way: str, files: list[str]) -> None:
    listed = ways.documented()[way]
    more, fewer = [file for file in files if file not in listed], sorted(listed.difference(files))
    assert not more, f"docs/reference/ways.md does not list {', '.join(more)}"
    assert not fewer, f"nothing runs in {', '.join(fewer)}: delete it in docs/reference/ways.md, and lower MAX_FILES"
    assert len(files) == MAX_FILES[way]


def test_a_metric_enters_the_listed_files(tmp_path: Path) -> None:
    check("metric", ways.metric(tmp_path))


def test_an_order_into_a_guard_enters_the_listed_files(tmp_path: Path) -> None:
    check("order_into_guard", ways.order_into_guard(tmp_path))


@pytest.mark.system
def test_an_order_into_a_trainer_of_transformers_enters_the_listed_files(tmp_path: Path) -> None:
    check("order_into_trainer", ways.order_into_trainer(tmp_path))


def test_a_report_enters_the_listed_files(sqlite_engine: sa.Engine) -> None:
    check("report", ways.report(sqlite_engine))


def test_a_page_enters_the_listed_files(sqlite_engine: sa.Engine) -> None:
    check("page", ways.page(sqlite_engine))
