import pytest

from monitor.cli.parameters import BadParameter, parse


def test_assignments_go_to_the_detection_and_to_the_policy() -> None:
    detection, policy = parse(["false_alarms_per_10k=2", "min_depth=250", "mode=observe", "allow_lr_scale=true"])
    assert detection.false_alarms_per_10k == 2
    assert (policy.min_depth, policy.mode, policy.allow_lr_scale) == (250, "observe", True)


@pytest.mark.parametrize("bad", ["min_depth=x", "min_depth=0", "depth=3", "min_depth"])
def test_a_bad_assignment_is_named(bad: str) -> None:
    with pytest.raises(BadParameter, match=f"--set {bad}"):
        parse([bad])
