"""Prometheus metrics of the hardware of running runs: the newest sample of each device, while it is fresh."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy.orm import Session

from db.records import hardware
from db.records.live_runs import RunPks, ShownRun
from lossguard.vocabulary.hardware import VALUES
from monitor.telemetry.run_family import FamilyType, RunFamily, label

FRESH_SECONDS = 120.0
"""An older sample says nothing about the present; a run that samples more rarely is not shown."""
ERROR_SECONDS = 300.0
"""Time for which an error is shown: between two scrapes, nobody would see it."""


class HardwareFamilies:
    """A gauge for each value that Lossguard knows, with one sample for each device that has it.

    Those of errors count what happened in the last ERROR_SECONDS.
    """

    def __init__(self) -> None:
        of_errors = f"over the last {ERROR_SECONDS:.0f} s"
        self._families = {
            value: RunFamily(
                value.gauge, f"{value.title}; {of_errors if value.error else 'newest value'}", FamilyType.GAUGE
            )
            for value in VALUES
        }

    def texts(
        self, session: Session, runs: Sequence[tuple[str, ShownRun]], run_pks: RunPks, now: float
    ) -> Iterator[str]:
        """The gauges of these runs, each with its labels."""
        newest = hardware.newest(session, run_pks=run_pks, since=now - FRESH_SECONDS)
        errors = hardware.num_errors_since(session, run_pks=run_pks, since=now - ERROR_SECONDS)
        devices: dict[int, list[tuple[str, Mapping[str, float]]]] = defaultdict(list)
        for sample in newest:
            shown = sample.readings | errors.get((sample.run_pk, sample.host, sample.device), {})
            of_device = f"{label('device', sample.device)},{label('host', sample.host)},"
            devices[sample.run_pk].append((of_device, {name: shown[name] for name in sample.readings}))
        for value, family in self._families.items():
            yield family.text(
                (labels, [(device, "", shown.get(value.name)) for device, shown in devices[run.run_pk]])
                for labels, run in runs
                if run.run_pk in devices
            )
