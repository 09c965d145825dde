"""A body is read as it comes; one that breaks off or never comes is an error in one sentence."""

import pytest
from urllib3.exceptions import ReadTimeoutError

from lossguard import Client, NotFound, Unreachable
from lossguard.client.answers import reason_of
from tests.lossguard.client.answers import answering

HEAD = b"HTTP/1.1 %s\r\ntransfer-encoding: chunked\r\n\r\n"


def test_a_body_is_read_in_pieces_of_the_size_that_is_asked_for() -> None:
    with (
        answering(HEAD % b"200 OK" + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n") as url,
        Client(url) as client,
        client.stream("/runs/r/export") as stream,
    ):
        assert [stream.read(5), stream.read(1), stream.read(), stream.read()] == [b"abcde", b"f", b"g", b""]
        assert (stream.num_bytes, stream.tail) == (7, b"abcdefg")


def test_a_connection_that_breaks_in_the_middle_is_one_sentence_and_the_next_request_opens_another() -> None:
    broken, whole = HEAD % b"200 OK" + b"3\r\nabc\r\n4\r\nd", HEAD % b"200 OK" + b"2\r\n[]\r\n0\r\n\r\n"
    with answering(broken, whole) as url, Client(url) as client:
        with client.stream("/runs/r/export") as stream:
            assert stream.read(3) == b"abc"
            with pytest.raises(Unreachable) as caught:
                stream.read()
        assert str(caught.value) == (
            f"the answer of {url} broke after 3 bytes (ProtocolError): "
            "ask again, and if it breaks again, look into the collector's log"
        )
        assert client.get("/runs") == []


def test_a_refusal_is_read_before_it_is_raised() -> None:
    problem = b'{"detail": "there is no run"}'
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(problem), problem)
    with (
        answering(HEAD % b"404 Not Found\r\ncontent-type: application/problem+json" + body) as url,
        Client(url) as client,
        pytest.raises(NotFound, match="there is no run"),
        client.stream("/runs/r/export"),
    ):
        pass


def test_a_collector_that_does_not_answer_is_reported_in_words_and_an_unknown_error_by_its_name() -> None:
    with pytest.raises(
        Unreachable, match=r"no collector answers at http://127\.0\.0\.1:1 \(the connection is refused\)"
    ):
        Client("http://127.0.0.1:1").ping()
    assert reason_of(ReadTimeoutError(None, "/", "late")) == "no answer in time"  # type: ignore[arg-type]
    assert reason_of(KeyError("x")) == "KeyError"
