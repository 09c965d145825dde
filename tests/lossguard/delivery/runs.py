"""Runs that deliver what they record."""

from pathlib import Path

import lossguard
from lossguard.run.recording import RecordingRun
from lossguard.run.settings import Settings
from tests.lossguard.collectors import FakeCollector


def online(collector: FakeCollector, folder: Path, run_id: str = "r") -> lossguard.Run:
    return lossguard.init("project", run_id=run_id, url=collector.url, directory=folder)


def with_heartbeat(collector: FakeCollector, folder: Path, seconds: float) -> RecordingRun:
    client = lossguard.Client(collector.url)
    registration = {"id": "r", "capabilities": []}
    settings = Settings.read({"LOSSGUARD_HARDWARE": "off"})
    return RecordingRun(registration, folder, settings, client=client, heartbeat=seconds)
