"""Run by torchrun, on 2 or 4 ranks: `python -m tests.ranks.stories FOLDER` writes what each rank saw to rank-N.json."""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from tests.ranks import agreement, saving

if __name__ == "__main__":
    dist.init_process_group("gloo")
    folder, rank, size = Path(sys.argv[1]), dist.get_rank(), dist.get_world_size()
    stories = [*agreement.STORIES, *(saving.ON_TWO if size == 2 else saving.ON_FOUR)]
    told = {story.__name__: story(folder) for story in stories}
    (folder / f"rank-{rank}-of-{size}.json").write_text(json.dumps(told))
    dist.destroy_process_group()
