"""Answer prompts with the models of checkpoints: what the dashboard's page Next token asks.

    python -m trainer explore CHECKPOINT [ANOTHER] [--port 8502]

It listens on this machine alone, and answers programs, not web pages.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from lossguard import encode_number
from lossguard.torch import next_token
from trainer.data.tokenizer import Tokenizer
from trainer.errors import UsageError
from trainer.model import GPT
from trainer.process.provenance import load_model, load_tokenizer

PORT = 8502
MAX_PROMPT = 4000
"""Characters."""
MAX_BODY = 65_536
"""Bytes."""
LOCAL = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Explored:
    """The model of one checkpoint."""

    name: str
    model: GPT
    tokenizer: Tokenizer

    @classmethod
    def at(cls, folder: Path) -> "Explored":
        """Named by its run and its step. Raises UsageError."""
        name = f"{folder.parent.parent.name} / {folder.name}" if folder.parent.name == "checkpoints" else folder.name
        return cls(name, load_model(folder), load_tokenizer(folder))

    @torch.no_grad()
    def answer(self, prompt: str) -> dict[str, Any]:
        """The details of a probe: the last token of the prompt is the true one. Raises UsageError."""
        tokens = self.tokenizer.encode(prompt)
        if len(tokens) < 2:
            raise UsageError("The prompt is too short: its last token is the one to predict.")
        if not all(0 <= token < self.model.config.vocab_size for token in tokens):
            raise UsageError("The prompt has a token that the model does not know.")
        *given, target = tokens
        logits_V = self.model(torch.tensor([given[-self.model.config.context :]]))[0, -1]
        found = next_token(logits_V, self.tokenizer.show, target=target, entropy=True)
        rest = {"count": found.pop("rest_count", 0), "log_probability": found.pop("rest_log_probability", None)}
        found["log_probabilities"] = [encode_number(value) for value in found["log_probabilities"]]
        return {"prompt": self.tokenizer.text(given), "rest": rest} | found


class Explorer(ThreadingHTTPServer):
    """Serves the models, one prompt at a time."""

    daemon_threads = True

    def __init__(self, explored: Sequence[Explored], port: int = PORT) -> None:
        """Raises UsageError for a port that is taken."""
        self.explored = explored
        self.lock = Lock()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as problem:
            raise UsageError(f"Port {port} cannot be used ({problem.strerror}): choose another with --port.") from None


class _Handler(BaseHTTPRequestHandler):
    server: Explorer
    timeout = 10

    def do_POST(self) -> None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in LOCAL or self.headers.get("Origin") or self.path != "/next-token":
            error = "Only programs of this machine are answered, at /next-token."
            return self._send(HTTPStatus.FORBIDDEN, {"error": error})
        try:
            length = int(self.headers.get("Content-Length") or 0)
            prompt = json.loads(self.rfile.read(length))["prompt"] if 0 < length <= MAX_BODY else None
        except (ValueError, KeyError, TypeError):
            prompt = None
        if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT:
            error = f"Send an object with a prompt of at most {MAX_PROMPT:,} characters."
            return self._send(HTTPStatus.BAD_REQUEST, {"error": error})
        try:
            with self.server.lock:
                answers = [{"name": each.name, "probe": each.answer(prompt)} for each in self.server.explored]
        except (UsageError, ValueError) as problem:
            return self._send(HTTPStatus.BAD_REQUEST, {"error": str(problem)})
        return self._send(HTTPStatus.OK, {"models": answers})

    def _send(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        content = json.dumps(body, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Prompts are not logged."""
