"""Which processes train the run together: the process group of torch.distributed, or this process alone."""

import sys
from typing import Any

from lossguard.ranks import Ranks


def current_ranks() -> Ranks:
    """The ranks of torch.distributed if this process has initialised it, else this process alone. Never loads torch."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return Ranks()
    if distributed.get_world_size() == 1:
        return Ranks()
    from lossguard.torch.ranks import TorchRanks  # torch is loaded already

    return TorchRanks()
