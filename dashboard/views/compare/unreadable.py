"""Compared lines whose steps cannot be read: each is named once, and the others are shown."""

from collections.abc import Iterator
from contextlib import contextmanager

from dashboard import formatting
from dashboard.data.store import StepsUnreadable
from dashboard.views import frame
from dashboard.views.compare.lines import ComparedLine


class UnreadableLine(Exception):
    """Steps of a compared line cannot be read."""

    def __init__(self, line: ComparedLine, reason: StepsUnreadable) -> None:
        super().__init__(str(reason))
        self.line, self.reason = line, reason


@contextmanager
def reading(line: ComparedLine) -> Iterator[None]:
    """Raises UnreadableLine where the steps of the line, which are read within, cannot be read."""
    try:
        yield
    except StepsUnreadable as error:
        raise UnreadableLine(line, error) from error


class Warnings:
    """Warnings of one page."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def show(self, error: UnreadableLine) -> None:
        """Name the line and the reason, unless the page has named it already."""
        label = error.line.label
        if label not in self._named:
            frame.warn_unavailable(error.reason, what=f"{formatting.escape_markdown(label)} is not shown. ")
        self._named.add(label)
