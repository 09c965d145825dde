"""Stopping and resuming the commands of the frameworks, and skipping in them."""

from lossguard.launch.adapters.adapter import Adapter, Options
from lossguard.launch.adapters.frameworks import ADAPTERS

__all__ = ["ADAPTERS", "Adapter", "Options"]
