import socket
import threading
from typing import Any

import pytest

from lossguard import ConfigurationError
from tests.answering import answering
from trainer.errors import UsageError
from trainer.process import reachability
from trainer.process.reachability import check_collector


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "TIMEOUT", 60.0)


def test_a_collector_that_answers_needs_no_warning() -> None:
    with answering(200) as server:
        assert check_collector(server.url + "/") is None


def test_another_server_at_the_address_is_an_error() -> None:
    with answering(404) as server, pytest.raises(UsageError, match="is not a Lossguard collector"):
        check_collector(server.url)


def test_a_collector_that_is_away_does_not_stop_training() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        assert "No collector answers" in str(check_collector(f"http://127.0.0.1:{unused.getsockname()[1]}"))


def test_an_unknown_host_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UsageError, match="there is no host with that name"):
        check_collector("http://nowhere.invalid:8000")


@pytest.mark.parametrize("address", ["127.0.0.1:abc", "127.0.0.1:99999", "127.0.0.1:-1", "[::1", "127.0.0.1/a b"])
def test_an_invalid_address_is_an_error(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the address of a collector"):
        check_collector(f"http://{address}")


def test_a_port_that_does_not_speak_http_is_an_error() -> None:
    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(UsageError, match="does not speak HTTP"):
            check_collector(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
