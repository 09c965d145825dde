import pytest
from urllib3.exceptions import ReadTimeoutError

from lossguard import Client, Unreachable
from lossguard.client.answers import reason_of


def test_a_collector_that_does_not_answer_is_reported_in_words_and_an_unknown_error_by_its_name() -> None:
    with pytest.raises(
        Unreachable, match=r"no collector answers at http://127\.0\.0\.1:1 \(the connection is refused\)"
    ):
        Client("http://127.0.0.1:1").ping()
    assert reason_of(ReadTimeoutError(None, "/", "late")) == "no answer in time"  # type: ignore[arg-type]
    assert reason_of(KeyError("x")) == "KeyError"
