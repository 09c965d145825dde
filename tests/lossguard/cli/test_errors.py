import pytest

from lossguard.cli.errors import CommandError, ExitCode, exit_code_of, fail, sentence_of
from lossguard.vocabulary.errors import (
    ConfigurationError,
    Conflict,
    LossguardError,
    NotFound,
    Rejected,
    Unauthorised,
    Unreachable,
)


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (CommandError("x", ExitCode.NOT_FOUND), 3),
        (CommandError("x"), 1),
        (ConfigurationError("x"), 2),
        (Rejected("x"), 2),
        (Conflict("x"), 1),
        (NotFound("x"), 3),
        (Unreachable("x", may_have_arrived=False), 4),
        (Unauthorised("x"), 5),
    ],
)
def test_each_error_has_an_exit_code_of_its_own(problem: LossguardError, code: int) -> None:
    assert exit_code_of(problem) == code


def test_an_error_is_one_line_that_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(CommandError("no run \x1b[31m\nx"), as_json=False) == 1
    assert capsys.readouterr().err == "lossguard: no run  [31m x\n"


def test_a_refusal_is_said_in_the_words_of_the_collector() -> None:
    assert sentence_of(Conflict("409 the run is held (at path)", detail="the run is held")) == "the run is held"
