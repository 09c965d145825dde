"""Signed orders: HMAC-SHA256 (RFC 2104) with a key that the collector and the trainer were given, and nobody between.

The signature covers all that the trainer acts on, and the run: an order that was altered, written into the database by
somebody else, or sent to another run has none that fits. That each order is carried out once is the work of its key.
"""

import hmac
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossguard.errors import ConfigurationError

SIGNATURE = "signature"
KEY, KEY_FILE = "LOSSGUARD_ORDER_KEY", "LOSSGUARD_ORDER_KEY_FILE"
MIN_KEY = 16
"""Characters."""


def signed_text(order: Mapping[str, Any]) -> str:
    """What of an order, as it is sent, a signature covers: every field that is set, in one spelling.

    A field that is null or an empty list is left out, so that a later release may add fields.
    """
    covered = {name: _spelled(value) for name, value in order.items() if name != SIGNATURE and value not in (None, [])}
    return json.dumps(covered, sort_keys=True, separators=(",", ":"))


def sign(text: str, run_id: str, key: str) -> str:
    """The signature of `signed_text` for an order to this run: 64 hexadecimal digits."""
    message = json.dumps([run_id, text]).encode()
    return hmac.new(key.encode(), message, "sha256").hexdigest()


def problem_with(signature: str | None, text: str, run_id: str, key: str) -> str | None:
    """Why an order cannot be believed, or None."""
    if not signature:
        return f"it is not signed, and this trainer has an order key: give the collector the same {KEY}"
    expected = sign(text, run_id, key)
    if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
        return f"its signature is wrong: it was altered, is another run's, or the collector has another {KEY}"
    return None


def read_key(environment: Mapping[str, str]) -> str | None:
    """The order key of LOSSGUARD_ORDER_KEY, or of the file that LOSSGUARD_ORDER_KEY_FILE names; None without one.

    Raises ConfigurationError, which never shows a key.
    """
    given, file = environment.get(KEY), environment.get(KEY_FILE)
    if given and file:
        raise ConfigurationError(f"set {KEY} or {KEY_FILE}, not both")
    if file:
        try:
            given = Path(file).read_text()
        except (OSError, ValueError) as problem:
            why = getattr(problem, "strerror", None) or "it is no text"
            raise ConfigurationError(f"{KEY_FILE}={file!r:.200} cannot be read ({why})") from None
        return checked_key(given, KEY_FILE)
    return checked_key(given, KEY) if given else None


def checked_key(key: str, source: str) -> str:
    """The key without blanks around it. Raises ConfigurationError for one that can be guessed."""
    key = key.strip()
    if len(key) < MIN_KEY or not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigurationError(
            f"{source}: an order key has at least {MIN_KEY} visible ASCII characters and no blanks, such as the "
            "output of: openssl rand -hex 32"
        )
    return key


def _spelled(value: Any) -> Any:
    """JSON has one kind of number: 12.0 is 12."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
