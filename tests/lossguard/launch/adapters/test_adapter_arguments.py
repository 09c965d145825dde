from lossguard.launch.adapters.adapter import has_option, option, values

COMMAND = ["train.py", "--save", "out", "--lr=0.1", "--lr=0.2", "--skip", "1", "2", "--fast", "--skip=3"]


def test_the_value_of_an_option_is_that_of_its_last_place() -> None:
    assert (option(COMMAND, "--save"), option(COMMAND, "--lr"), option(COMMAND, "--load")) == ("out", "0.2", None)
    assert option(["--save"], "--save") is None


def test_an_option_with_or_without_a_value_is_found() -> None:
    assert has_option(COMMAND, "--fast")
    assert has_option(COMMAND, "--lr")
    assert not has_option(COMMAND, "--slow")


def test_the_values_of_an_option_end_with_the_next_one() -> None:
    assert values(COMMAND, "--skip") == ["1", "2", "3"]
