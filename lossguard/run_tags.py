"""The tags of a run. Pure."""

from collections.abc import Mapping
from typing import Any


def tags_of(given: Any, config: Mapping[str, Any]) -> list[str]:
    """`given`: those that people gave it, or None; until then the strings in the list under "tags" in its `config`."""
    found = config.get("tags") if given is None else given
    return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []
