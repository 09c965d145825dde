"""Lightning's own checkpoints as those to which the run is rolled back.

    <directory>/step-000000050/trainer.ckpt      as `trainer.save_checkpoint` writes it: for `fit(ckpt_path=..)`, too
                               lossguard-0.pt    of each rank: what that file leaves out
                               manifest.json     checksums of both
    <directory>/discarded/step-...               some that the last rollback discarded

The folders are not those of a ModelCheckpoint: its `save_top_k` deletes none of them, and its files are not restored.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossguard.lightning.framework import Trainer
from lossguard.torch.files import check_readable, read_state
from lossguard.torch.framework_checkpoints import FrameworkCheckpoints
from lossguard.torch.stateful import Stateful

FILE = "trainer.ckpt"


class TrainerCheckpoints(FrameworkCheckpoints):
    """What `trainer` writes. `keep`, `uncompared` and `objects`: as for `Checkpoints`.

    Saving raises CheckpointError where `save_hyperparameters` or a hook has put more into the file than tensors and
    plain values: reading it back would run code that is in it.
    """

    formats = ("lightning",)
    own = ("loops", "callbacks", "data")

    def __init__(
        self,
        trainer: Trainer,
        directory: str | os.PathLike[str],
        *,
        keep: int,
        uncompared: Mapping[str, Stateful],
        **objects: Any,
    ) -> None:
        self._trainer = trainer
        super().__init__(directory, keep=keep, blocking=True, uncompared=uncompared, **objects)

    def _write_by_framework(self, folder: Path) -> None:
        try:
            self._trainer.save_checkpoint(folder / FILE)
        except Exception:
            self._trainer.strategy.barrier()  # where the other ranks wait
            raise
        if self.ranks.rank == 0:
            check_readable(folder / FILE)

    def _read_by_framework(self, folder: Path) -> dict[str, Any]:
        return {FILE: read_state(folder / FILE)}

    def _load_states(self, step: int, states: Mapping[str, Any]) -> None:
        trainer, content = self._trainer, states[FILE]
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            each.on_load_checkpoint(trainer, trainer.lightning_module, content)
        trainer.lightning_module.on_load_checkpoint(content)
        precision = type(self.objects["precision"]).__qualname__  # absent where it has no state
        restored = {"model": content["state_dict"], "precision": content.get(precision, {})}
        restored |= {f"optimizer{i}": each for i, each in enumerate(content["optimizer_states"])}
        restored |= {f"schedule{i}": each for i, each in enumerate(content["lr_schedulers"])}
        super()._load_states(step, {**states, **restored})
