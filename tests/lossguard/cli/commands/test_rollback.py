import pytest

from lossguard.cli.commands.rollback import skipped
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.cli.calls import Cli


@pytest.mark.parametrize(
    ("text", "expected"), [(None, (None, None)), ("5:10", (5, 10)), (":10", (None, 10)), ("5:5", (5, 5))]
)
def test_a_range_of_batches_is_a_to_b(text: str | None, expected: tuple[int | None, int | None]) -> None:
    assert skipped(text) == expected


@pytest.mark.parametrize("text", ["", "5", "5:", "9:5", "a:b", "-1:4", "1:2:3", "1" * 17 + ":2"])
def test_anything_else_is_no_range(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must be A:B"):
        skipped(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lr-scale", "0"], "--lr-scale 0 must be above 0 and at most 1"),
        (["--to", "-3"], "--to -3 must be a step"),
        (["--lr-scale", "1.5"], "--lr-scale 1.5 must be above 0 and at most 1"),
        (["--lr-scale", "nan"], "--lr-scale nan must be above 0 and at most 1"),
        (["--remedy", "Clip"], "--remedy 'Clip' must have 1 to 64 characters of a-z, 0-9 and _"),
    ],
)
def test_a_change_of_the_training_that_no_run_can_make_is_refused_before_anybody_is_asked(
    arguments: list[str], said: str, cli: Cli
) -> None:
    assert said in cli.fails(2, "rollback", "r", *arguments)
