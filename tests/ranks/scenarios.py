"""On each of 2 or 4 ranks, `python -m tests.ranks.scenarios FOLDER` writes results to rank-N-of-SIZE.json."""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from tests.ranks import agreement, gating, saving, skipping, token_means

if __name__ == "__main__":
    dist.init_process_group("gloo")
    folder, rank, size = Path(sys.argv[1]), dist.get_rank(), dist.get_world_size()
    selected = [
        *agreement.SCENARIOS,
        *token_means.SCENARIOS,
        *gating.SCENARIOS,
        *skipping.SCENARIOS,
        *(saving.ON_TWO_RANKS if size == 2 else saving.ON_FOUR_RANKS),
    ]
    results = {scenario.__name__: scenario(folder) for scenario in selected}
    (folder / f"rank-{rank}-of-{size}.json").write_text(json.dumps(results))
    dist.destroy_process_group()
