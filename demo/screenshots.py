"""The pictures of the README and of docs/: every page of the dashboard, and the report, of a real run.

python -m demo.screenshots                       those in the docs; trains two runs first (minutes)
python -m demo.screenshots --all --out FOLDER    every page in light and dark, 1440 and 390 pixels wide, to look at
python -m demo.screenshots --dashboard http://localhost:8501 --run ID [--other ID] [--report FILE]
                                                 of an existing run

Writes docs/pictures/PAGE-THEME-WIDTH.png. Needs the package playwright and the program chromium (`make system`).
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from demo.__main__ import train
from lossguard_server.services import Ports, one_sentence, services, store_in

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
PAGES = {
    "runs": "/",
    "run": "/run?run={run}",
    "compare": "/compare?runs={run},{other}",
    "incident": "/incident?run={run}&incident=1",
    "next-token": "/next-token?run={run}&temperature=1.5",
    "lab": "/lab?run={run}",
    "trainer-lab": "/trainer-lab",
}
REPORT = "report"
NAME = re.compile(r"pictures/(?P<page>[a-z-]+)-(?P<theme>light|dark)-(?P<width>\d+)\.png")
WIDTHS = (1440, 390)
FAULTS = ("lr_kick@200", "lr_kick@200", "corrupted_batches@400")
"""Of the run in the pictures: two kicks at one step multiply to 900 times the learning rate; the loss passes 70."""
PORTS = Ports(collector=8017, dashboard=8517)
"""Of the collector and the dashboard: different from those of the demo."""
NUM_COLORS = 256
"""Enough for text and lines, at a third of the bytes."""
REPORT_HEIGHT = 1330
"""Pixels: the report is long, and its picture shows the beginning."""
MAX_HEIGHT = 3000
"""Pixels; of a page that is longer, the picture shows the beginning."""
MAX_ATTEMPTS = 3

CONTENT = "[data-testid=stMetric], .card-facts, .lossguard-figure"
"""What every page has once it shows its run."""
HEIGHT = "document.querySelector('[data-testid=stMain]').scrollHeight"
DRAWN = "[...document.querySelectorAll('.lossguard-figure')].every(figure => figure.dataset.drawn)"
QUIET = "document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"
BROKEN = "document.body.innerText.includes('Failed to fetch')"

Theme = Literal["light", "dark"]


@dataclass(frozen=True, slots=True, order=True)
class Picture:
    page: str
    theme: Theme
    width: int

    @property
    def file(self) -> str:
        return f"{self.page}-{self.theme}-{self.width}.png"


def shown() -> list[Picture]:
    """The pictures in the README and the docs."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    found = {match.group("page", "theme", "width") for text in texts for match in NAME.finditer(text)}
    return sorted(Picture(page, "light" if theme == "light" else "dark", int(width)) for page, theme, width in found)


def every() -> list[Picture]:
    themes: tuple[Theme, ...] = ("light", "dark")
    return [Picture(page, theme, width) for page in (*PAGES, REPORT) for theme in themes for width in WIDTHS]


@dataclass(frozen=True, slots=True)
class Source:
    """What the pictures show."""

    dashboard: str
    """Its URL."""
    run: str
    other: str
    """The run on the comparison page."""
    report: Path | None

    def url(self, page: str) -> str:
        return self.dashboard + PAGES[page].format(run=self.run, other=self.other)


def take(pictures: list[Picture], source: Source, folder: Path) -> None:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for picture in pictures:
            target = folder / picture.file
            if picture.page != REPORT:
                _take_page(browser, source.url(picture.page), picture, target)
            elif source.report is not None:
                _take_report(browser, source.report, picture, target)
            else:
                continue
            _make_small(target)
            print(f"{target} ({target.stat().st_size:,} bytes)")
        browser.close()


def _take_page(browser: Browser, url: str, picture: Picture, target: Path) -> None:
    """Try again if a part of the page did not arrive, which happens on a busy machine."""
    for _ in range(MAX_ATTEMPTS):
        with closing(_open(browser, picture, height=400)) as page:
            page.goto(url)
            with suppress(PlaywrightTimeout):
                _settle(page)
                height = min(max(400, page.evaluate(HEIGHT)), MAX_HEIGHT)
                page.set_viewport_size({"width": picture.width, "height": height})
                _settle(page)
                if not page.evaluate(BROKEN):
                    page.screenshot(path=target)
                    return
    raise RuntimeError(f"{url} did not load completely in {MAX_ATTEMPTS} attempts")


def _take_report(browser: Browser, report: Path, picture: Picture, target: Path) -> None:
    with closing(_open(browser, picture, height=REPORT_HEIGHT)) as page:
        page.goto(report.absolute().as_uri())
        page.screenshot(path=target)


def _make_small(target: Path) -> None:
    """Half of the colours are the most frequent ones, half are as far apart as can be: a marker's is rare."""
    picture = Image.open(target).convert("RGB")
    pixels = np.asarray(picture).reshape(-1, 3)
    found, where, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    apart = picture.quantize(NUM_COLORS // 2, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    book = np.concatenate(
        [found[np.argsort(-counts)[: NUM_COLORS // 2]], np.array(apart, dtype=np.uint8).reshape(-1, 3)]
    )
    nearest = [np.abs(book.astype(int) - color).sum(axis=1).argmin() for color in found.astype(int)]
    small = Image.fromarray(np.array(nearest, dtype=np.uint8)[where].reshape(picture.height, picture.width), "P")
    small.putpalette(book.tobytes())
    small.save(target, optimize=True)


def _open(browser: Browser, picture: Picture, *, height: int) -> Page:
    return browser.new_page(viewport={"width": picture.width, "height": height}, color_scheme=picture.theme)


def _settle(page: Page) -> None:
    """Until everything is drawn, and nothing moves any more."""
    page.wait_for_selector(CONTENT, timeout=60_000)
    page.wait_for_timeout(1500)
    page.wait_for_function(f"() => {QUIET} && {DRAWN}", timeout=60_000)
    page.wait_for_timeout(500)


@contextmanager
def trained() -> Iterator[Source]:
    """The demo's run with its report, and one with half its learning rate."""
    with tempfile.TemporaryDirectory() as place:
        folder, database = Path(place), store_in(Path(place))
        with one_sentence("screenshots"), services(folder, database, PORTS, command="") as running:
            train(running.processes, folder, running.collector, "demo", faults=FAULTS)
            train(running.processes, folder, running.collector, "half-lr", "optimizer.lr=1e-3", "name=tiny, half lr")
            report = folder / "report.html"
            command = [sys.executable, "-m", "dashboard", "report", "demo", "--database", database, "-o", str(report)]
            subprocess.run(command, check=True)
            yield Source(running.dashboard, "demo", "half-lr", report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dashboard", help="URL of a dashboard that is up")
    parser.add_argument("--run", help="the run to show")
    parser.add_argument("--other", help="the run to compare it with; by default its first segment")
    parser.add_argument("--report", type=Path, help="its report, as HTML; without it none is shown")
    parser.add_argument("--all", action="store_true", help="every page in both themes and widths")
    parser.add_argument("--out", type=Path, default=PICTURES)
    asked = parser.parse_args()
    if (asked.dashboard is None) != (asked.run is None):
        parser.error("--dashboard and --run go together")
    asked.out.mkdir(parents=True, exist_ok=True)
    pictures = every() if asked.all else shown()
    if asked.dashboard is not None:
        take(pictures, Source(asked.dashboard, asked.run, asked.other or f"{asked.run}:0", asked.report), asked.out)
        return
    with trained() as source:
        take(pictures, source, asked.out)


if __name__ == "__main__":
    main()
