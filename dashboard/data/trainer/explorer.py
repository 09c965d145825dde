"""Asks `python -m trainer explore`, which answers prompts with the models of checkpoints."""

import http.client
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass

import streamlit as st

from db.cli.command_engine import as_typed_here
from lossguard.vocabulary.wire import Probe

VARIABLE, DEFAULT = "LOSSGUARD_EXPLORER_URL", "http://127.0.0.1:8502"
"""The environment variable with its address. No viewer chooses it: the dashboard asks from where it runs."""
TIMEOUT = 10.0
"""Seconds."""
CACHE_SECONDS = 60.0
"""Seconds for which an answer is kept: a live page would ask again every few seconds."""
MAX_BYTES = 2**20
"""Largest size of an answer, in bytes."""
MAX_MODELS = 4
COMMAND = as_typed_here("python -m trainer explore CHECKPOINT [ANOTHER]")
OTHER_RELEASE = f"The answer is none of this release: start it again with {COMMAND}"


class ExplorerError(Exception):
    """There is no answer; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class ExplorerAnswer:
    """Predictions of the model of a checkpoint."""

    name: str
    probe: Probe


def ask(prompt: str) -> list[ExplorerAnswer]:
    """Return each checkpoint's predictions of the prompt's last token. Raises ExplorerError."""
    return _ask((os.environ.get(VARIABLE) or DEFAULT).rstrip("/"), prompt)


@st.cache_resource(ttl=CACHE_SECONDS, show_spinner=False, max_entries=64)
def _ask(address: str, prompt: str) -> list[ExplorerAnswer]:
    """Ask, unless the answer is kept; an error is not."""
    try:
        request = urllib.request.Request(f"{address}/next-token", json.dumps({"prompt": prompt}).encode())
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return _answers(answer.read(MAX_BYTES))
    except urllib.error.HTTPError as refused:
        with refused:
            raise ExplorerError(_reason(refused.read(MAX_BYTES))) from None
    except OSError:
        raise ExplorerError(f"Nothing answers at {address}. Start it where the checkpoints are: {COMMAND}") from None
    except (ValueError, http.client.InvalidURL):
        raise ExplorerError(f"{VARIABLE} must be an address such as {DEFAULT}, not {address!r:.80}.") from None
    except http.client.HTTPException:
        raise ExplorerError(OTHER_RELEASE) from None


def _answers(content: bytes) -> list[ExplorerAnswer]:
    """Raises ExplorerError."""
    try:
        models = json.loads(content)["models"][:MAX_MODELS]
        answers = [ExplorerAnswer(str(each["name"])[:200], Probe.from_details(each["probe"])) for each in models]
        if not answers:
            raise ValueError("no model")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ExplorerError(OTHER_RELEASE) from None
    return answers


def _reason(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "The prompt was refused."
