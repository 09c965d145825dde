"""What a user can set about detection. The defaults serve every run that we have seen; there is none per file."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionSettings:
    """Raises ValueError when a value makes no sense, naming it."""

    false_alarms_per_10k: float = 0.5
    """Wished false incidents per 10,000 rows of a healthy run, for each signal."""
    warmup_rows: int = 24
    """Rows that a signal needs before anything but a gross jump can be an alarm."""
    window_rows: int = 64
    """Rows behind the local trend and the local noise of a signal."""
    block_rows: int = 32
    """The trend is fitted anew at every multiple of this many rows (more often in a young run)."""
    tail_rows: int = 256
    """Past surprises kept for the run's own tail."""
    grace_rows: int = 40
    """Rows after a declared event in which the new normal is learnt, with the band wider by the shift seen."""
    adopt_rows: int = 120
    """A level that has held for so many rows out of band is taken for the new normal; its incident ends as ongoing."""
    calm_rows: int = 3
    """Rows back in band that end an incident."""
    plateau_rows: int = 4000
    """Rows without a lower loss before the plateau advisory; 0 turns it off."""

    def __post_init__(self) -> None:
        for name in ("false_alarms_per_10k", "warmup_rows", "block_rows", "grace_rows", "adopt_rows", "calm_rows"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        if self.window_rows < 16:
            raise ValueError(f"window_rows must be at least 16, not {self.window_rows!r}")
        if not 64 <= self.tail_rows <= 1024:
            raise ValueError(f"tail_rows must be in 64..1024 (the state is kept small), not {self.tail_rows!r}")
        if self.plateau_rows < 0:
            raise ValueError(f"plateau_rows must not be negative, not {self.plateau_rows!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DetectionSettings":
        """Raises ValueError for an unknown name."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown detection settings: {', '.join(unknown)}")
        return cls(**values)
