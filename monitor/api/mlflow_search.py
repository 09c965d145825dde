"""The filters of MLflow's searches that its loggers use: equality of names, tags and params, joined by AND."""

import re
from dataclasses import dataclass, field

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


Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RunSearch:
    """Names and values that a filter of runs asks for."""

    params: Pairs = field(default_factory=list)
    tags: Pairs = field(default_factory=list)
    attributes: Pairs = field(default_factory=list)

    def fits(self, run: Run, logged: MlflowRun) -> bool:
        """True if the run has these attributes."""
        info = run_info(run, logged)
        return all(info.get(name) == value for name, value in self.attributes)


def run_search(text: str) -> RunSearch:
    """Parse a filter of runs. Raises Problem for a filter with other comparisons."""
    wanted = RunSearch()
    of_kind = {"att": wanted.attributes, "tag": wanted.tags, "par": wanted.params}
    at = 0
    while text[at:].strip():
        term = _TERM.match(text, at)
        if term is None:
            raise _unsupported(text, "attributes.run_name = '..', tags.key = '..' and params.key = '..', joined by AND")
        kind = (term["kind"] or "attribute")[:3].lower()
        of_kind[kind].append((_unquoted(term["key"]), term["value"]))
        at = term.end()
    return wanted


def _unquoted(name: str) -> str:
    return name[1:-1] if name[0] in ("`", '"') else name


def _unsupported(text: str, supported: str) -> Problem:
    detail = f"the collector does not know the filter {text!r:.200}; it knows {supported}"
    return Problem(422, "the filter is not supported", detail, ["body", "filter"])
