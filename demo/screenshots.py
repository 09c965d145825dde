"""The pictures of the README and of docs/: every page of the dashboard, of a real run.

python -m demo.screenshots                                        trains the demo's run and another one first (minutes)
python -m demo.screenshots --dashboard http://localhost:8501 --run ID --other ID      of a dashboard that is up already

Writes docs/pictures/PAGE-THEME-WIDTH.png in light and dark, 1440 and 390 pixels wide. Needs the package playwright and
the program chromium (`make system`).
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from demo.__main__ import services, train

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
PAGES = {
    "runs": "/",
    "run": "/run?run={run}",
    "compare": "/compare?runs={run},{other}",
    "incident": "/incident?run={run}&incident=1",
    "next-token": "/next-token?run={run}&temperature=1.5",
    "lab": "/lab?run={run}",
}
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (1440, 390)
PORTS = (8017, 8517)
"""Of the collector and the dashboard: not those of a demo that is up."""
DRAWN = "[...document.querySelectorAll('.lossguard-figure')].every(figure => figure.dataset.drawn)"
HEIGHT = "document.querySelector('[data-testid=stMain]').scrollHeight"


def take(dashboard: str, run: str, other: str, folder: Path) -> None:
    """Every page in both themes and widths, of a run; the comparison is with the other one."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, path in PAGES.items():
            for theme in THEMES:
                for width in WIDTHS:
                    target = folder / f"{name}-{theme}-{width}.png"
                    _take_one(browser, dashboard + path.format(run=run, other=other), theme, width, target)
                    print(target)
        browser.close()


def _take_one(browser: Browser, url: str, theme: Literal["light", "dark"], width: int, target: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": 400}, color_scheme=theme)
    page.goto(url)
    _settle(page)
    page.set_viewport_size({"width": width, "height": max(400, page.evaluate(HEIGHT))})
    _settle(page)
    page.screenshot(path=target)
    page.close()


def _settle(page: Page) -> None:
    """Until everything is drawn, and nothing moves any more."""
    page.wait_for_selector("[data-testid=stMetric], .lossguard-figure", timeout=60_000)
    page.wait_for_function(DRAWN, timeout=60_000)
    page.wait_for_timeout(1500)


@contextmanager
def trained() -> Iterator[tuple[str, str, str]]:
    """A dashboard with the demo's run and one with half its learning rate: its URL, and the runs' ids."""
    with (
        tempfile.TemporaryDirectory() as folder,
        services(Path(folder), f"sqlite:///{folder}/lossguard.db", *PORTS) as running,
    ):
        train(running.processes, Path(folder), running.collector, "demo")
        train(running.processes, Path(folder), running.collector, "half-lr", "optimizer.lr=1e-3", "name=tiny, half lr")
        yield running.dashboard, "demo", "half-lr"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dashboard", help="URL of a dashboard that is up")
    parser.add_argument("--run", help="the run to show")
    parser.add_argument("--other", help="the run to compare it with; by default its first segment")
    parser.add_argument("--out", type=Path, default=PICTURES)
    arguments = parser.parse_args()
    if (arguments.dashboard is None) != (arguments.run is None):
        parser.error("--dashboard and --run go together")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.dashboard is not None:
        take(arguments.dashboard, arguments.run, arguments.other or f"{arguments.run}:0", arguments.out)
        return
    with trained() as (dashboard, run, other):
        take(dashboard, run, other, arguments.out)


if __name__ == "__main__":
    main()
