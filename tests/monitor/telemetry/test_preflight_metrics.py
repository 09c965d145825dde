"""The metrics from which the alert about a waiting intervention takes its text and its link."""

from lossguard.vocabulary.protocol import API
from tests.monitor.client import TestClient
from tests.monitor.scenarios import ANSWERS_PREFLIGHT, proposed


def lines(http: TestClient) -> dict[str, str]:
    """Metric with its labels -> value."""
    text = http.get("/metrics").text
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("lossguard_preflight"))


LABELS = '{incident="1",intervention="1",kind="rollback",project="gpt",run="r1"}'


def test_a_proposed_rollback_is_shown_until_a_person_has_decided(http: TestClient) -> None:
    trainer, answer = proposed(http, capabilities=ANSWERS_PREFLIGHT)
    shown = lines(http)
    row = trainer.get()["interventions"][-1]
    assert float(shown[f"lossguard_preflight_discarded_steps{LABELS}"]) == 301 - row["rewind_to"]
    assert float(shown[f"lossguard_preflight_skipped_batches{LABELS}"]) == row["skip_to"] - row["skip_from"]
    assert f"lossguard_preflight_restorable{LABELS}" not in shown  # the trainer has not answered
    found = {"id": answer["preflight"]["id"], "problem": "gone", "refused": "mode=observe"}
    trainer.report(0, [], {}, restorable_steps=[0], preflight=found)
    assert float(lines(http)[f"lossguard_preflight_restorable{LABELS}"]) == 0
    assert float(lines(http)[f"lossguard_preflight_refused{LABELS}"]) == 1
    http.post(f"{API}/interventions/{row['id']}/reject")
    assert lines(http) == {}
