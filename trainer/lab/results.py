"""Results of the lab, in groups and as JSON."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lossguard import Estimate
from trainer.conversion import encoded

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def grouped(results: Iterable[Any], field: str) -> dict[Any, list[Any]]:
    """Value of a field -> the results that have it, both in order."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for each in results:
        groups[getattr(each, field)].append(each)
    return groups


def means(results: Sequence[Any], *fields: str) -> list[str]:
    """Return the mean of each field over results of several seeds, with its standard error."""
    return [str(Estimate.of(getattr(each, field) for each in results)) for field in fields]


def to_json(result: "DataclassInstance") -> str:
    """Return one line of JSON; non-finite numbers are strings, as in the protocol."""
    return json.dumps(encoded(result), allow_nan=False)
