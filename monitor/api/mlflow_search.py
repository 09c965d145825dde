"""The filters of MLflow's searches that its loggers use: equality of names, tags and params, joined by AND."""

import re
from collections.abc import Callable
from typing import Any

from db.models import MlflowRun, Run
from monitor.api.mlflow_responses import run_info
from monitor.problems import Problem

_NAME = re.compile(r"""\s*(?:attributes?\.)?name\s*=\s*(['"])(?P<value>(?:(?!\1).)*)\1\s*""", re.DOTALL)
_TERM = re.compile(
    r"""\s*(?:(?P<kind>attributes?|tags?|params?|parameters?)\.)?(?P<key>[\w.]+|`[^`]+`|"[^"]+")\s*=\s*(['"])"""
    r"""(?P<value>(?:(?!\3).)*)\3\s*(?:$|\band\b)""",
    re.DOTALL | re.IGNORECASE,
)


def named(text: str) -> str | None:
    """The name that a filter of experiments asks for; None without a filter. Raises Problem for any other filter."""
    if not text.strip():
        return None
    match = _NAME.fullmatch(text)
    if match is None:
        raise _unsupported(text, "name = '..'")
    return match["value"]


def matches(text: str) -> Callable[[Run, MlflowRun], bool]:
    """Whether a run passes the filter. Raises Problem for a filter with other comparisons."""
    wanted: list[tuple[str, str, str]] = []
    at = 0
    while text[at:].strip():
        term = _TERM.match(text, at)
        if term is None:
            raise _unsupported(text, "attributes.run_name = '..', tags.key = '..' and params.key = '..', joined by AND")
        wanted.append(((term["kind"] or "attribute")[:3].lower(), term["key"].strip('`"'), term["value"]))
        at = term.end()
    return lambda run, logged: all(_value(run, logged, kind, key) == value for kind, key, value in wanted)


def _value(run: Run, logged: MlflowRun, kind: str, key: str) -> Any:
    if kind == "att":
        return run_info(run, logged).get(key)
    return (logged.tags if kind == "tag" else logged.params).get(key)


def _unsupported(text: str, supported: str) -> Problem:
    detail = f"the collector does not know the filter {text!r:.200}; it knows {supported}"
    return Problem(422, "the filter is not supported", detail, ["body", "filter"])
