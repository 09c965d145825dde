"""The Trainer lab in the app."""

import pytest

from dashboard.data.trainer import lab_results_file
from dashboard.figures.compute import PUBLISHED
from dashboard.views.trainer_lab.sections import sections
from tests.dashboard.app_content import figures
from tests.dashboard.conftest import OpenPage
from tests.dashboard.hostile_runs import MARKUP
from tests.dashboard.views.trainer_lab.results import SWEEPS, SWITCH, lines

pytestmark = pytest.mark.usefixtures("store")
FILE = "A JSONL file"


def test_the_shipped_results_are_shown_with_an_empty_store(open_page: OpenPage) -> None:
    app = open_page("trainer_lab")
    assert not app.exception
    results = lab_results_file.shipped()
    assert results is not None
    expected = list(sections(results))
    assert [each.value for each in app.subheader] == [section.title for section in expected]
    assert len(figures(app)) == sum(len(section.plots) for section in expected)
    assert [each.value for each in app.code] == [section.command for section in expected if section.command]
    assert len(app.dataframe) == len(expected)
    assert len(app.dataframe[-1].value) == len(PUBLISHED)


def test_results_that_are_not_installed_are_explained(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_results_file, "SHIPPED", ())
    app = open_page("trainer_lab")
    assert not app.exception
    assert "are not installed here" in app.info[0].value


def test_an_uploaded_file_replaces_the_shipped_results(open_page: OpenPage) -> None:
    app = open_page("trainer_lab", results=FILE)
    assert not app.dataframe
    app.file_uploader[0].set_value(("mine.jsonl", lines(*SWEEPS), "application/json")).run()
    assert not app.exception
    assert app.dataframe[0].value["Recipe"].tolist() == ["drill"]
    assert len(figures(app)) == 8


def test_hostile_names_are_shown_as_text(open_page: OpenPage) -> None:
    app = open_page("trainer_lab", results=FILE)
    content = lines(*(SWITCH | {"recipe": name} for name in (MARKUP, "a\u202eb", "`$x$` **b**")))
    app.file_uploader[0].set_value(("mine.jsonl", content, "text/plain")).run()
    assert not app.exception
    assert app.dataframe[0].value["Recipe"].tolist()[0] == MARKUP
    texts = [each.value for kind in (app.markdown, app.caption) for each in kind]
    assert not any("script" in text or "**b**" in text for text in texts)
    assert not app.code
