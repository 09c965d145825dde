import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from lossguard import Client, ConfigurationError
from lossguard.client.endpoint import checked_token, collector_url
from lossguard.run.settings import Settings


@pytest.mark.parametrize("host", ["sk-collector", "hf_monitoring1", "token"])
def test_a_host_whose_name_looks_like_a_secret_is_a_host(host: str) -> None:
    assert collector_url("url", f"http://{host}:8000") == f"http://{host}:8000"


def test_the_address_of_a_collector_loses_its_trailing_slash() -> None:
    assert collector_url("url", "https://host:8000/base/") == "https://host:8000/base"


@pytest.mark.parametrize(
    "value", ["host:8000", "ftp://host", "http://", "http://h/?a=1", "http://h/#a", "http://h/a b"]
)
def test_an_address_that_cannot_be_a_collectors_is_refused_with_its_setting(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"LOSSGUARD_URL=.* is not the address of a collector"):
        collector_url("LOSSGUARD_URL", value)


@pytest.mark.parametrize(
    "value",
    [
        "http://ada:Zq81xYvL@host:8000",
        "http://Zq81xYvL@host",
        "https://host/?token=Zq81xYvL",
        "ftp://ada:Zq81xYvL@host",
        "https://ada:Zq81x@YvL@host",
    ],
)
def test_an_address_with_a_secret_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(ConfigurationError, match="LOSSGUARD_TOKEN") as problem:
        collector_url("LOSSGUARD_URL", value)
    assert "Zq81x" not in str(problem.value)


@given(st.from_regex(r"https?://[A-Za-z0-9._-]{1,20}(:[0-9]{1,6})?/?", fullmatch=True))
def test_a_plain_address_is_judged_as_urllib3_judges_it(address: str) -> None:
    try:
        accepted = collector_url("url", address)
    except ConfigurationError:
        accepted = None
    try:
        expected = address.rstrip("/") if parse_url(address).host else None
    except LocationParseError:
        expected = None
    assert accepted == expected


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
