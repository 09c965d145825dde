"""Files that run a shell command when they are unpickled: what an attacker would put into a checkpoint."""

import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


class Payload:
    """Creates the file `proof` when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.proof}'",)


def as_torch_saves_it(path: Path, proof: Path) -> None:
    _save(Payload(proof), path)


def as_torch_saved_it_before_1_6(path: Path, proof: Path) -> None:
    _save(Payload(proof), path, _use_new_zipfile_serialization=False)


def within_a_state(path: Path, proof: Path) -> None:
    _save({"value": 20, "more": [torch.ones(3), Payload(proof)]}, path)


def as_a_plain_pickle(path: Path, proof: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(proof), protocol=2))


def _save(content: Any, path: Path, **options: Any) -> None:
    with path.open("wb") as file:  # torch.save itself refuses the name .metadata
        torch.save(content, file, **options)


PAYLOADS = [as_torch_saves_it, as_torch_saved_it_before_1_6, within_a_state, as_a_plain_pickle]


def runs_when_trusted(path: Path, proof: Path) -> bool:
    """Whether a reader that trusts the file runs its command; leaves no proof behind."""
    with suppress(RuntimeError):  # "Invalid magic number" of a plain pickle, after its command has run
        torch.load(path, weights_only=False)
    ran = proof.exists()
    proof.unlink(missing_ok=True)
    return ran
