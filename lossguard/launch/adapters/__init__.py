"""Stopping and resuming the commands of the frameworks, and skipping in them: one module for each framework."""

from collections.abc import Mapping, Sequence

from lossguard.launch.adapters.adapter import Adapter, Options, Resume
from lossguard.launch.adapters.generic import GenericAdapter
from lossguard.launch.adapters.hf import HFAdapter
from lossguard.launch.adapters.megatron import MegatronAdapter
from lossguard.launch.adapters.nanochat import NanochatAdapter
from lossguard.launch.adapters.torchtitan import TorchtitanAdapter
from lossguard.vocabulary.errors import ConfigurationError

ADAPTERS: dict[str, type[Adapter]] = {
    each.name: each for each in (HFAdapter, MegatronAdapter, TorchtitanAdapter, NanochatAdapter, GenericAdapter)
}

__all__ = ["ADAPTERS", "Adapter", "Options", "Resume", "adapter_for"]


def adapter_for(name: str, command: Sequence[str], environment: Mapping[str, str], options: Options) -> Adapter:
    """The adapter of this name for a command. Raises ConfigurationError for an unknown name, and for a command that
    does not say what the adapter needs."""
    if name not in ADAPTERS:
        raise ConfigurationError(f"--restart-with {name!r:.80} must be one of {', '.join(ADAPTERS)}")
    return ADAPTERS[name](command, environment, options)
