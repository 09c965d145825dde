import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from lossguard import ConfigurationError
from lossguard.vocabulary.secrets import collector_url, host_of, is_loopback


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


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("host", False)],
)
def test_loopback_is_known_by_address_and_by_name(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_host_of_an_address_that_cannot_be_parsed_is_empty() -> None:
    assert [host_of(url) for url in ("http://h:1/a", "//[::1]:80", "http://[::1", "")] == ["h", "::1", "", ""]


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
