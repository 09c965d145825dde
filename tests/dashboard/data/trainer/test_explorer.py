import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from dashboard.data.trainer import explorer
from dashboard.data.trainer.explorer import ExplorerError
from tests.dashboard.app_content import forget

PROBE = {
    "prompt": "ab", "target": "c", "tokens": ["c", "d"], "log_probabilities": [-0.1, -2.4],
    "target_log_probability": -0.1, "rest": {"count": 0, "log_probability": None},
}  # fmt: skip


class Answering(BaseHTTPRequestHandler):
    answer: tuple[int, Any] = (200, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.answer
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answering]]:
    forget()
    monkeypatch.setattr(explorer, "TIMEOUT", 120)
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("LOSSGUARD_EXPLORER_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield Answering
        server.shutdown()


def test_each_checkpoint_answers_with_a_probe(answering: type[Answering]) -> None:
    answering.answer = (200, {"models": [{"name": "one", "probe": PROBE}, {"name": "two", "probe": PROBE}]})
    first, second = explorer.ask("abc")
    assert (first.name, second.name, first.probe.target) == ("one", "two", "c")


def test_a_page_that_refreshes_asks_a_prompt_once_and_again_after_an_error(answering: type[Answering]) -> None:
    answering.answer = (400, {"error": "The prompt is too short."})
    with pytest.raises(ExplorerError):
        explorer.ask("abc")
    answering.answer = (200, {"models": [{"name": "one", "probe": PROBE}]})
    assert [each.name for each in explorer.ask("abc")] == ["one"]
    answering.answer = (200, {"models": [{"name": "two", "probe": PROBE}]})
    assert [each.name for each in explorer.ask("abc")] == ["one"]
    assert [each.name for each in explorer.ask("abcd")] == ["two"]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((400, {"error": "The prompt is too short."}), "The prompt is too short."),
        ((500, b"<html>"), "The prompt was refused."),
        ((200, b"<html>"), "none of this release"),
        ((200, {"models": [{"name": "one", "probe": {}}]}), "none of this release"),
        ((200, {"models": []}), "none of this release"),
    ],
)
def test_without_an_answer_there_is_a_sentence(
    answering: type[Answering], answer: tuple[int, Any], sentence: str
) -> None:
    answering.answer = answer
    with pytest.raises(ExplorerError, match=sentence):
        explorer.ask("abc")


@pytest.mark.parametrize("address", ["explorer", "http://127.0.0.1:port", "http://a b", "http://a\u00e4..b"])
def test_a_setting_that_is_no_address_is_said_with_its_name(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_EXPLORER_URL", address)
    with pytest.raises(ExplorerError, match="LOSSGUARD_EXPLORER_URL must be an address such as http"):
        explorer.ask("abc")


def test_another_protocol_at_the_address_is_an_answer_of_no_release(
    answering: type[Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    def greet(handler: Answering) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n")

    monkeypatch.setattr(answering, "do_POST", greet)
    with pytest.raises(ExplorerError, match="none of this release"):
        explorer.ask("abc")


def test_nobody_there_is_said_with_the_command_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_EXPLORER_URL", "http://127.0.0.1:9")
    with pytest.raises(ExplorerError, match="trainer explore CHECKPOINT"):
        explorer.ask("abc")
