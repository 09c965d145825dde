"""Who writes a run is shown, and ended, on the command line."""

import re

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from lossguard.vocabulary.protocol import API
from monitor.cli import lease
from tests.monitor.client import Trainer, collector, writer


def test_a_person_sees_who_writes_a_run_and_takes_it_from_that_process(store: sa.Engine) -> None:
    run = CliRunner()
    with collector(store, clock=None, lease_seconds=3600.0) as http:  # it lasts, however slow this machine is
        first = Trainer(http, writer=writer("a"))
        shown = run.invoke(lease.app, ["show", "r1"])
        assert shown.exit_code == 0
        assert re.fullmatch(r"1@host-a, 3[56]\d\d s left\n", shown.output)
        ended = run.invoke(lease.app, ["end", "r1"])
        assert (ended.exit_code, "1@host-a has lost the run r1" in ended.output) == (0, True)
        assert run.invoke(lease.app, ["show", "r1"]).output == "nobody holds the lease\n"
        assert first.report(first.open("a"), [0], {"loss": [1.0]})["lease"] == 0.0
        assert [line["action"] for line in http.get(f"{API}/audit?run=r1").json()] == ["end lease"]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("command", ["show", "end"])
def test_a_run_that_does_not_exist_is_one_sentence(command: str) -> None:
    done = CliRunner().invoke(lease.app, [command, "nobody"])
    assert (done.exit_code, done.output) == (2, "monitor: there is no run 'nobody'\n")
