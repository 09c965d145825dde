"""A token of a file with a line break at its end, and one that no header can hold."""

import pytest

from lossguard import Client
from lossguard.run.settings import Settings
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.secrets import checked_token


def test_blanks_around_a_token_are_not_part_of_it() -> None:
    assert checked_token("token", " secret\n") == "secret"
    assert Settings.read({"LOSSGUARD_TOKEN": "secret\n"}).token == "secret"


@pytest.mark.parametrize("token", ["sec\nret", "sec\x00ret", " \n"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token: str) -> None:
    for make, setting in (
        (lambda: Settings.read({"LOSSGUARD_TOKEN": token}), "LOSSGUARD_TOKEN"),
        (lambda: Settings.read({}, token=token), "token"),
        (lambda: Client("http://127.0.0.1:1", token), "token"),
    ):
        with pytest.raises(ConfigurationError, match=f"^{setting} must be one line of printable characters") as raised:
            make()
        assert "ret" not in str(raised.value)
