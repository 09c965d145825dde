"""Stopping and resuming the commands of the frameworks, and skipping in them: one module for each framework."""

from lossguard.launch.adapters.adapter import Adapter, Options
from lossguard.launch.adapters.generic import GenericAdapter
from lossguard.launch.adapters.hf import HFAdapter
from lossguard.launch.adapters.megatron import MegatronAdapter
from lossguard.launch.adapters.nanochat import NanochatAdapter
from lossguard.launch.adapters.torchtitan import TorchtitanAdapter

ADAPTERS: dict[str, type[Adapter]] = {
    each.name: each for each in (HFAdapter, MegatronAdapter, TorchtitanAdapter, NanochatAdapter, GenericAdapter)
}

__all__ = ["ADAPTERS", "Adapter", "Options"]
