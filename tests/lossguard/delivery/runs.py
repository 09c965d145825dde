"""Runs that deliver what they record."""

from pathlib import Path

import lossguard
from lossguard.delivery.sender import HEARTBEAT
from lossguard.run.recording import RecordingRun
from lossguard.run.settings import Settings
from tests.lossguard.collectors import FakeCollector


def online(collector: FakeCollector, folder: Path, run_id: str = "r") -> lossguard.Run:
    return lossguard.init("project", run_id=run_id, url=collector.url, directory=folder)


def with_heartbeat(
    collector: FakeCollector, folder: Path, seconds: float = HEARTBEAT, *, hardware: str = "off"
) -> RecordingRun:
    client = lossguard.Client(collector.url)
    settings = Settings.read({"LOSSGUARD_HARDWARE": hardware})
    return RecordingRun({"id": "r", "capabilities": []}, folder, settings, client=client, heartbeat=seconds)
