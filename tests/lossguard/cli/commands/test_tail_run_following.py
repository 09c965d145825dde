import math

from lossguard import Client
from lossguard.cli.commands.tail import NON_FINITE, Follower
from tests.lossguard.cli.small_runs import trained


def test_a_follower_sees_steps_incidents_interventions_segments_and_the_end_once_and_in_order(
    collector_client: Client,
) -> None:
    run = trained(collector_client, "r", 100)
    follower = Follower(collector_client, run.get(), ("loss",), last=2)
    first = follower.look()
    assert [each.kind for each in first] == ["state", "step", "step"]
    assert [each.facts["step"] for each in first[1:]] == [98, 99]
    assert follower.look() == []
    run.report(100, [float("nan")])
    incident, intervention, step = follower.look()
    assert incident.sentence == "incident 1: nonfinite, treated (loss, onset step 100)"
    assert intervention.sentence == "intervention 1: rollback to 10, ordered"
    assert step.facts == {"step": 100, "segment": 0, "metrics": {"loss": NON_FINITE}}
    order = run.get()["orders"][0]
    run.open(order["rewind_to"], "rollback", order["id"])
    run.report(order["rewind_to"], [2.5, 2.5])
    after = follower.look()
    assert [each.sentence for each in after if each.kind != "step"] == [
        "intervention 1: rollback to 10, applied",
        "segment 1 from step 10: rollback",
    ]
    assert [each.facts["step"] for each in after if each.kind == "step"] == [10, 11]
    run.finish()
    assert follower.look()[-1].fields() == {"event": "state", "run": "r", "state": "finished"}


def test_the_steps_that_a_rollback_discards_between_two_looks_are_seen_too(collector_client: Client) -> None:
    run = trained(collector_client, "r", 100)
    follower = Follower(collector_client, run.get(), (), last=0)
    follower.look()
    run.report(100, [2.0, 2.0, 2.0])
    run.open(50, "rewind")
    run.report(50, [2.0])
    seen = [(each.facts["segment"], each.facts["step"]) for each in follower.look() if each.kind == "step"]
    assert seen == [(0, 100), (0, 101), (0, 102), (1, 50)]


def test_what_was_over_before_is_no_news(collector_client: Client) -> None:
    run = trained(collector_client, "r", 100, policy={"mode": "observe"})
    run.report(100, [math.nan])
    run.report(101, [2.0] * 60)
    (incident,) = run.get("/incidents")
    assert incident["state"] == "closed"
    follower = Follower(collector_client, run.get(), ("loss",), last=0)
    assert [each.kind for each in follower.look()] == ["state"]
