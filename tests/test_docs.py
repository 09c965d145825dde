"""What the documentation says is true: links, paths, routes, commands and names exist, and the site builds offline."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import dashboard.__main__
import lossguard
import lossguard.torch
import monitor.__main__
import trainer.cli
from db.cli import app as db_cli
from lossguard.run.settings import VARIABLES
from tests.frameworks import ROWS
from tests.monitor.client import TestClient
from tests.monitor.conftest import clock as clock
from tests.monitor.conftest import http as http
from tests.mutations import GUARDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
MAX_LINE_LENGTH = 140
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
IN_REPOSITORY = re.compile(
    r"`((?:\.ci|\.github|benchmarks|dashboard|db|demo|deploy|docs|examples|lossguard|monitor|tests|trainer)/[\w./*-]*)`"
)
NO_PATHS = {"deploy/secrets", "lossguard/service", "lossguard/trainer"}
"""A folder that every installation creates for itself, and names of images."""
APPLICATIONS = {
    "dashboard": dashboard.__main__.app,
    "db": db_cli.app,
    "monitor": monitor.__main__.app,
    "trainer": trainer.cli.app,
}


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip() for heading in headings)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text)) for text in texts}


def test_the_lines_of_a_page_fit_a_screen() -> None:
    too_long = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MAX_LINE_LENGTH
    ]
    assert too_long == []


def test_every_code_block_of_a_page_ends() -> None:
    fences = {page: re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE) for page in PAGES}
    assert [str(page.relative_to(ROOT)) for page, found in fences.items() if len(found) % 2] == []


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield f"{page.relative_to(ROOT)}: {target}"


def test_the_links_of_a_page_lead_somewhere() -> None:
    assert [link for page in PAGES for link in broken_links(page)] == []


def test_the_paths_that_a_page_names_exist() -> None:
    named = {(page, path) for page in PAGES for path in IN_REPOSITORY.findall(page.read_text(encoding="utf-8"))}
    unknown = [(page, path) for page, path in named if path not in NO_PATHS and not any(ROOT.glob(path.rstrip("/")))]
    assert sorted(f"{page.relative_to(ROOT)}: {path}" for page, path in unknown) == []


def test_a_page_names_the_commit_of_a_benchmark_that_is_not_kept() -> None:
    named = re.compile(
        r"`(?:\.venv/bin/)?(python\s-m\s)?(benchmarks\.\w+)[^`]*`(?:(?:\sand\s`[^`]*`,\sboth)?\sat\s([0-9a-f]{8})\b)?"
    )
    found = [(page, *each) for page in PAGES if page.name != "CHANGELOG.md" for each in named.findall(page.read_text())]
    assert len(found) > 40
    missing = [(page.name, name) for page, command, name, at in found if command or not at if find_spec(name) is None]
    assert missing == []


def test_every_public_name_is_on_the_reference_pages() -> None:
    for module, page in ((lossguard, "sdk.md"), (lossguard.torch, "torch.md")):
        named = re.findall(r"^::: ([\w.]+)$", (DOCS / "reference" / page).read_text(), re.MULTILINE)
        assert {name.rsplit(".", 1)[1] for name in named} == set(module.__all__)


def test_the_page_of_the_api_has_every_route_and_no_other(http: TestClient) -> None:
    description = http.get("/openapi.json").json()
    routes = {f"{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods}
    page = (DOCS / "reference" / "http.md").read_text()
    assert set(re.findall(r"^\| `([A-Z]+ /\S+)`", page, re.MULTILINE)) == routes


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """A command and all commands below it, each with its name as it is typed. (typer has its own copy of click.)"""
    yield name, command
    for child, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {child}".strip())


def test_the_page_of_commands_has_every_command_and_only_options_that_exist() -> None:
    page = (DOCS / "reference" / "commands.md").read_text()
    found = re.finditer(r"## [^\n]*`python -m (\w+)`.*?(?=\n## |\Z)", page, re.DOTALL)
    sections = {section[1]: section[0] for section in found}
    for package, app in APPLICATIONS.items():
        known = {"--nproc-per-node"}  # torchrun's
        for name, command in commands(typer.main.get_command(app)):
            assert f"`{name}" in sections[package] or hasattr(command, "commands"), f"python -m {package} {name}"
            known |= {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", sections[package]))
        assert named <= known, f"python -m {package}: {named - known}"


def test_the_page_of_settings_has_every_variable_of_the_sdk() -> None:
    read = set(re.findall(r"LOSSGUARD_\w+", (ROOT / "lossguard" / "run" / "settings.py").read_text()))
    assert read <= VARIABLES.keys()
    of_the_sdk = re.sub(
        r"## Settings of the collector.*?(?=\n## )",
        "",
        (DOCS / "reference" / "settings.md").read_text(),
        flags=re.DOTALL,
    )
    assert VARIABLES.keys() - set(re.findall(r"^\| `(\w+)`", of_the_sdk, re.MULTILINE)) == set()


def test_every_decision_is_numbered_in_order_and_listed() -> None:
    files = sorted(path.name for path in (DOCS / "decisions").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in files] == list(range(1, len(files) + 1))
    assert re.findall(r"\((\d{4}[\w-]*\.md)\)", (DOCS / "decisions" / "index.md").read_text()) == files
    for name in files:
        text = (DOCS / "decisions" / name).read_text()
        assert text.startswith(f"# {int(name[:4])}. ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_each_promise_and_each_guard_has_one_test() -> None:
    promised = re.findall(r"`([\w/]+\.py::\w+)`", (DOCS / "reference" / "promises.md").read_text())
    assert len(promised) > 90
    for test in [*promised, *(guard.test for guard in GUARDS)]:
        file, _, name = test.partition("::")
        named = re.findall(rf"^def test_{name}", (ROOT / "tests" / file).read_text(), re.MULTILINE)
        assert len(named) == 1, f"{test}: correct docs/reference/promises.md or tests/mutations.py"
    for guard in GUARDS:
        assert (ROOT / guard.file).read_text().count(guard.line) == 1, f"{guard}: correct tests/mutations.py"


@pytest.mark.system
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {"NO_MKDOCS_2_WARNING": "1", "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"(https?:[^\"]+)\"", page.read_text(encoding="utf-8"))
        loaded += re.findall(r"<link[^>]* href=\"(https?:[^\"]+)\"", page.read_text(encoding="utf-8"))
        assert loaded == [], page


def test_the_forge_runs_what_a_developer_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job, frameworks = workflow["jobs"]["make"], workflow["jobs"]["frameworks"]
    assert frameworks["strategy"]["matrix"]["row"] == list(ROWS)
    assert frameworks["steps"][-1]["run"] == "make test-frameworks ROWS=${{ matrix.row }}"
    assert [path for _, tests in ROWS.values() for path in tests if not (ROOT / path).exists()] == []
    targets = re.findall(r"^make (\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert job["strategy"]["matrix"]["target"] == targets
    assert job["steps"][-1]["run"] == "make ${{ matrix.target }}"
    nightly = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())["jobs"]
    assert [job["steps"][-1]["run"] for job in nightly.values()] == ["make test-system"]


def test_the_hooks_before_a_commit_run_the_ruff_that_is_installed() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (ruff,) = [repository for repository in hooks["repos"] if repository["repo"].endswith("ruff-pre-commit")]
    installed = subprocess.run([sys.executable, "-m", "ruff", "--version"], capture_output=True, text=True, check=True)
    major_minor = installed.stdout.split()[1].rsplit(".", 1)[0]
    assert ruff["rev"].startswith(f"v{major_minor}."), "another version may format differently"
