import json

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.cli.small_runs import trained


def test_incidents_are_listed_and_one_is_shown_with_its_reasons(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(collector_client, "r", 100)
    assert main(["incidents", "r"]) == 0
    assert capsys.readouterr().out == "r has no incidents\n"
    run.report(100, [float("nan")])
    assert main(["incidents", "r"]) == 0
    assert "rollback to 10, ordered" in capsys.readouterr().out.splitlines()[1]
    assert main(["incidents", "r", "1"]) == 0
    out = capsys.readouterr().out
    assert "Incident 1 of r: nonfinite, treated" in out
    assert "Intervention 1: rollback to 10, ordered; batches 99 to 124 skipped\n  " in out
    assert main(["incidents", "r", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["onset_step"], shown["interventions"][0]["rewind_to"]) == ("nonfinite", 100, 10)
    assert main(["incidents", "r", "2"]) == 3
    assert "run r has no incident 2: it has 1" in capsys.readouterr().err
