"""The orders of a list of runs."""

from enum import StrEnum


class RunOrder(StrEnum):
    """Equal runs are sorted newest first."""

    NEWEST = "newest"  # those that started last
    REPORT = "last_report"  # those that reported last
    ATTENTION = "attention"  # those that need a person, then silent ones, then running ones
    INCIDENTS = "open_incidents"  # those with most open incidents
    NAME = "name"  # by project and name
