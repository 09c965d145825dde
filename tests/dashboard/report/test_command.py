"""`python -m dashboard report`: the files that it writes, and what it refuses in one sentence with exit code 2."""

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
import streamlit as st
from typer.testing import CliRunner, Result

from dashboard.__main__ import app
from db.store.engine import writing
from tests.dashboard.seed import seed
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")


def report(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    """The one sentence."""
    result = report(*arguments)
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("python -m dashboard report: ")
    return sentence.removeprefix("python -m dashboard report: ")


def test_a_run_is_written_to_one_file_and_an_earlier_one_is_replaced(
    store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(store, now=time.time())
    target = tmp_path / "report.html"
    target.write_text("yesterday's")
    result = report("gpt-small/stdlib bytes", "-o", target)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"wrote {target} ({target.stat().st_size:,} bytes)\n"
    assert "gpt-small / stdlib bytes" in target.read_text(encoding="utf-8")
    assert [each.name for each in tmp_path.iterdir() if "report" in each.name] == ["report.html"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o044 == 0o044, "others may read it, as any file that is written here"
    monkeypatch.chdir(tmp_path)
    assert report("spi", "--timezone", "Asia/Kolkata").exit_code == 0
    assert "Time zone: Asia/Kolkata." in (tmp_path / "spiky-1.html").read_text(encoding="utf-8")


@pytest.mark.slow(4)
def test_the_command_says_only_what_it_wrote(store: sa.Engine, tmp_path: Path) -> None:
    """Streamlit, whose caches it uses, warns where it serves no page."""
    seed(store, now=time.time())
    command = [sys.executable, "-m", "dashboard", "report", "spiky-1", "-o", str(tmp_path / "r.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout.startswith("wrote "), done.stderr) == (True, "")


def test_a_run_that_is_not_there_or_not_clear_is_refused(store: sa.Engine, tmp_path: Path) -> None:
    assert refusal("nix", "-o", tmp_path / "r.html") == "there is no run 'nix': the store has no runs yet"
    with writing(store) as session:
        add_run(session, "r1")
        add_run(session, "r2")
    st.cache_resource.clear()
    assert refusal("nix", "-o", tmp_path / "r.html").startswith(
        "there is no run 'nix' in this store; the newest are: r"
    )
    assert refusal("r", "-o", tmp_path / "r.html").startswith("'r' matches 2 runs; name one by its id: ")
    assert not list(tmp_path.glob("*r.html*"))


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    assert (
        refusal("r", "-o", tmp_path / "r.docx") == f"{tmp_path}/r.docx: the name of the file must end in .html or .pdf"
    )
    assert refusal("r", "-o", tmp_path / "no" / "r.html").startswith(f"there is no folder {tmp_path}/no; make it")
    (tmp_path / "folder.html").mkdir()
    assert refusal("r", "-o", tmp_path / "folder.html").endswith("folder.html is a folder; name a file in it")
    assert refusal("r", "-o", tmp_path / f"{'r' * 300}.html").endswith("r.html: File name too long")
    assert refusal("r", "--timezone", "Mars/Base").startswith("there is no time zone 'Mars/Base'; write it like")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "is not a database URL"),
        ("mysql://host/name", "mysql is not supported"),
        ("postgresql://lossguard:secret@127.0.0.1:1/lossguard", "cannot be reached"),
        ("sqlite:///{folder}/empty.db", "has no tables yet"),
        ("sqlite:///{folder}/none.db", "there is no store at"),
    ],
)
def test_a_store_that_cannot_be_read_is_refused(tmp_path: Path, url: str, why: str) -> None:
    (tmp_path / "empty.db").touch()
    sentence = refusal("r", "-o", tmp_path / "r.html", "--database", url.format(folder=tmp_path))
    assert why in sentence
    assert "secret" not in sentence
    assert not (tmp_path / "none.db").exists()


def test_without_chromium_a_pdf_is_refused_and_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sentence = refusal("r", "-o", tmp_path / "r.pdf")
    assert sentence.startswith("a PDF is printed by Chromium, and none of chromium, chromium-browser, google-chrome")
    assert sentence.endswith("is on the PATH; install it, or write a .html and print that")


@pytest.mark.needs("chromium")
@pytest.mark.slow
def test_the_pdf_has_pages(store: sa.Engine, tmp_path: Path) -> None:
    seed(store, now=time.time())
    result = report("spiky-1", "-o", tmp_path / "r.pdf", "-o", tmp_path / "r.html")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 2
    content = (tmp_path / "r.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert 3 <= content.count(b"/Type /Page\n") <= 12
