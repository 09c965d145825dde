from lossguard import Client
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import trained


def test_incidents_are_listed_and_one_is_shown_with_its_reasons(collector_client: Client, cli: Cli) -> None:
    run = trained(collector_client, "r", 100)
    assert cli("incidents", "r") == "r has no incidents\n"
    run.report(100, [float("nan")])
    assert "rollback to 10, ordered" in cli("incidents", "r").splitlines()[1]
    out = cli("incidents", "r", "1")
    assert "Incident 1 of r: nonfinite, treated" in out
    assert "It does not recover by itself: a value is not finite." in out
    assert "Intervention 1: rollback to 10, ordered; batches 99 to 124 skipped\n  " in out
    shown = cli.json("incidents", "r", "1")
    assert shown["lasting_probability"] == 1.0
    assert (shown["kind"], shown["onset_step"], shown["interventions"][0]["rewind_to"]) == ("nonfinite", 100, 10)
    assert "run r has no incident 2: it has 1" in cli.fails(3, "incidents", "r", "2")
