"""The ways through our code: the files in which a function runs, from one end of an exchange to the other.

    python -m tests.ways            the files of each way, as docs/reference/ways.md lists them

All threads count. Every exchange takes place once before it is counted, so that no module is imported and no cache is
filled meanwhile. Nothing that happens at times of its own is in the way: no checkpoint is due, the hardware is not
sampled, and the collector has no leader.
"""

import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from textwrap import fill
from types import CodeType, FrameType
from typing import Any, Self

import httpx2
import pytest
import sqlalchemy as sa
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest

import dashboard.server  # noqa: F401 - Streamlit as the server has it
import lossguard
from dashboard.figures import component
from db import migrate
from db.store.engine import create_engine
from lossguard.torch import Checkpoints
from lossguard.vocabulary.states import RunState
from tests.dashboard import serving
from tests.dashboard.seed import seed
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.collectors import serving as serving_fake
from tests.lossguard.scripted import Indices
from tests.monitor.client import Trainer, writer
from tests.monitor.scenarios import CHECKPOINTS, noise, train_until_nan
from tests.waiting import wait_for

ROOT = Path(__file__).parents[1]
APP = ROOT / "dashboard" / "app.py"
EVERY, ORDERED_AT = 5, 6
"""Steps between two checkpoints, and the step after which a rollback is ordered: it is done before step 10."""
WIDTH = 138


class Trace:
    """Notes the files below `folders` in which a function runs, in this thread and in those that start in the block."""

    def __init__(self, *folders: str) -> None:
        self._folders = tuple(f"{ROOT / folder}{os.sep}" for folder in folders)
        self._entered: dict[str, list[str]] = {}  # by thread, in the order of the first entry
        self._end_of: CodeType | None = None
        self.is_on = False

    def __enter__(self) -> Self:
        threading.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        threading.setprofile(None)

    def begin(self, *, end_of: Callable[..., object] | None = None) -> None:
        """Note files from now on, until `end` or until the function `end_of` returns."""
        self._end_of = None if end_of is None else end_of.__code__
        self.is_on = True
        sys.setprofile(self._note)

    def end(self) -> None:
        self.is_on = False
        sys.setprofile(None)

    def files(self, *, without: threading.Thread | None = None) -> list[str]:
        """Paths in the repository, in the order of their first entry, one thread after the other."""
        threads = [files for name, files in self._entered.items() if without is None or name != without.name]
        return list(dict.fromkeys(file for files in threads for file in files))

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if not self.is_on:
            return
        code = frame.f_code
        if event == "return" and code is self._end_of:
            self.is_on = False
        if event == "call" and code.co_filename.startswith(self._folders) and not _is_import(frame):
            entered = self._entered.setdefault(threading.current_thread().name, [])
            file = str(Path(code.co_filename).relative_to(ROOT))
            if file not in entered:
                entered.append(file)


def _is_import(frame: FrameType) -> bool:
    """True for a module's own code, except in the scripts that Streamlit runs for each view of a page."""
    return frame.f_code.co_name == "<module>" and frame.f_globals["__name__"] != "__main__"


@contextmanager
def _recorded(folder: Path) -> Iterator[tuple[Trace, FakeCollector, lossguard.Run]]:
    """A run that is delivered to a collector on loopback."""
    with pytest.MonkeyPatch.context() as patch, Trace("lossguard") as trace, serving_fake(FakeCollector()) as collector:
        for name in [name for name in os.environ if name.startswith("LOSSGUARD_")]:
            patch.delenv(name)
        patch.setenv("LOSSGUARD_HARDWARE", "off")
        run = lossguard.init("ways", url=collector.url, directory=folder / "runs")
        yield trace, collector, run
        run.finish()


def _wait_for_rows(collector: FakeCollector, num: int) -> None:
    wait_for(lambda: len(collector.rows) == num, seconds=60, what="the row is stored")


def metric(folder: Path) -> list[str]:
    """From `run.log` until the row is stored. Two rows are sent, as the sender reads the answer after that."""
    with _recorded(folder) as (trace, collector, run):
        for step in range(4):
            if step == 2:
                trace.begin()
            run.log(step, loss=torch.tensor(1.0))
            _wait_for_rows(collector, step + 1)
        trace.end()
    return trace.files()


class Rollbacks:
    """Orders two rollbacks to step 0, and traces the second: from the answer that brings it to its acknowledgement.

    The loop may find the order at the next boundary or at the two after it: always before its next checkpoint.
    """

    def __init__(self, trace: Trace, collector: FakeCollector) -> None:
        self._trace, self._collector = trace, collector
        self._num_rows = self._num_orders = 0
        self.is_done = False

    def logged(self, step: int) -> None:
        """Call it after each logged step."""
        self._num_rows += 1
        if step < ORDERED_AT and not self._trace.is_on:
            return
        _wait_for_rows(self._collector, self._num_rows)
        if 2 in self._collector.answers:
            self._trace.end()
            self.is_done = True
        elif step == ORDERED_AT and self._num_orders < 2:
            wait_for(_no_checkpoint_is_written, seconds=60, what="the checkpoint is written")
            self._num_orders += 1
            if self._num_orders == 2:
                self._trace.begin()
            self._collector.order(id=self._num_orders, kind="rollback", rewind_to=0, skip_from=3, skip_to=5)


def _no_checkpoint_is_written() -> bool:
    return all(thread.name != "lossguard-checkpoint" for thread in threading.enumerate())


def order_into_guard(folder: Path) -> list[str]:
    """From the answer that brings a rollback to its acknowledgement, with the reports in between."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    with _recorded(folder) as (trace, collector, run):
        rollbacks = Rollbacks(trace, collector)
        checkpoints = Checkpoints(folder / "checkpoints", model=model, optimizer=optimizer)
        for step, _ in lossguard.Guard(run, checkpoints=checkpoints, every=EVERY).steps(Indices(), 100):
            run.log(step, loss=torch.tensor(1.0))
            rollbacks.logged(step)
            if rollbacks.is_done:
                break
    return trace.files()


def order_into_trainer(folder: Path) -> list[str]:
    """The same in the loop of a Hugging Face Trainer."""
    # Loads transformers.
    from transformers import TrainerCallback

    from lossguard.hf import guard
    from tests.lossguard.hf.small import Rows, trainer_in

    class Driver(TrainerCallback):
        def __init__(self, rollbacks: Rollbacks) -> None:
            self.rollbacks = rollbacks
            self.step: int | None = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.step is not None:  # it was logged when this step was loaded
                self.rollbacks.logged(self.step)
            self.step = state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = self.rollbacks.is_done

    with _recorded(folder) as (trace, collector, run):
        driver = Driver(Rollbacks(trace, collector))
        trainer = trainer_in(folder, Rows(100), max_steps=100, callbacks=[driver])
        guard(trainer, run, every=EVERY)
        trainer.train()
    return trace.files()


def report(engine: sa.Engine) -> list[str]:
    """From the socket of the collector to the answer with the order: the report of a loss that is not finite."""
    with (
        Trace("monitor", "db", "lossguard") as trace,
        serving.serving(engine, lifespan="off") as url,
        httpx2.Client(base_url=url) as http,
    ):
        sender: Any = http
        train_until_nan(Trainer(sender, "first", writer=writer("a")))
        trainer = Trainer(sender, "second", writer=writer("b"))
        segment = trainer.open("a")
        trainer.report(segment, range(300), {"loss": noise(1, 300)}, restorable_steps=CHECKPOINTS)
        trace.begin()
        answer = trainer.report(segment, [300], {"loss": [float("nan")]})
        trace.end()
    assert answer["orders"]
    return trace.files(without=threading.current_thread())


def page(engine: sa.Engine) -> list[str]:
    """From the URL of the Run page to its chart, of a run that nobody has looked at before."""
    seed(engine, state=RunState.FINISHED, now=time.time())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSGUARD_DATABASE_URL", str(engine.url))
        patch.delenv("LOSSGUARD_URL", raising=False)
        pages = AppTest.from_file(APP, default_timeout=120).run()._registered_pages
        _run_page(pages).run()
        st.cache_data.clear()
        st.cache_resource.clear()
        with Trace("dashboard", "monitor", "db") as trace:
            trace.begin(end_of=component.show)
            app = _run_page(pages).run()
            assert not app.exception
            assert not trace.is_on, "the page has drawn no chart"
    return trace.files()


def _run_page(pages: Any) -> AppTest:
    """As `open_page` of tests/dashboard/conftest.py."""
    app = AppTest.from_file(APP, default_timeout=120)
    app._registered_pages = pages
    app.switch_page("views/run/page.py")
    app.query_params["run"] = "spiky-1"
    return app


WAYS: dict[str, Callable[[Any], list[str]]] = {
    way.__name__: way for way in (metric, order_into_guard, order_into_trainer, report, page)
}


def to_text(files: Iterable[str]) -> str:
    """Files as docs/reference/ways.md lists them: neighbours of one folder as folder/{one,another}."""
    parts = []
    for folder, members in groupby(files, lambda file: Path(file).parent):
        names = [Path(file).stem for file in members]
        parts.append(f"{folder}/" + (names[0] if len(names) == 1 else "{" + ",".join(names) + "}"))
    return fill(", ".join(parts), WIDTH, break_long_words=False, break_on_hyphens=False)


def documented() -> dict[str, set[str]]:
    """By way, its files as docs/reference/ways.md lists them."""
    page = (ROOT / "docs" / "reference" / "ways.md").read_text(encoding="utf-8")
    texts = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    files = {way: set(_from_text(text)) for way, text in zip(WAYS, texts, strict=True)}
    return files | {way: files[way] | files["metric"] for way in ("order_into_guard", "order_into_trainer")}


def _from_text(text: str) -> Iterator[str]:
    for folder, several, one in re.findall(r"([\w/]+)/(?:{([\w,]+)}|(\w+))", text):
        yield from (f"{folder}/{name}.py" for name in (several or one).split(","))


def main() -> None:
    listed: list[str] = []  # of a metric, for the orders
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            if way in (report, page):
                engine = create_engine(f"sqlite:///{folder}/lossguard.db")
                migrate.upgrade(engine)
                files = new = way(engine)
            else:
                files = way(Path(folder))
                new = [file for file in files if file not in listed]
                listed = listed or files
        print(f"{name}: {len(files)} files\n{to_text(new)}\n")


if __name__ == "__main__":
    main()
