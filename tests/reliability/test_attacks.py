"""Under each attack honest trainers are served, the memory stays bounded, and the collector recovers by itself."""

import contextlib
import resource
import socket
from pathlib import Path

import pytest

from tests.reliability.attack import (
    MAX_MEMORY,
    MAX_RECOVERY,
    MIN_REQUESTS,
    MIN_SERVED,
    HonestTrainer,
    carry_out,
    collector_with_tokens,
    is_healthy,
)
from tests.reliability.hostile_requests import ATTACKS
from tests.waiting import eventually

pytestmark = pytest.mark.system


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_keeps_no_honest_trainer_out(tmp_path: Path, attack: str) -> None:
    with collector_with_tokens(tmp_path) as (collector, tokens):
        outcome = carry_out(attack, collector, tokens, 1.5)
    assert outcome.requests >= MIN_REQUESTS
    assert outcome.served >= MIN_SERVED, outcome
    assert outcome.memory <= MAX_MEMORY, outcome
    assert outcome.recovery <= MAX_RECOVERY, outcome


def test_a_collector_without_files_for_new_connections_recovers_while_they_are_still_open(tmp_path: Path) -> None:
    """1,100 half heads at a limit of 1,024 files stopped it for good, and the log said nothing."""
    few = 100
    with collector_with_tokens(tmp_path, LOSSGUARD_HEADER_TIMEOUT="1") as (collector, tokens):
        trainer = HonestTrainer(collector.url, tokens[0], "honest")
        resource.prlimit(collector.pid, resource.RLIMIT_NOFILE, (few, few))  # less than it knows of
        with contextlib.ExitStack() as opened:
            for _ in range(2 * few):
                with contextlib.suppress(OSError):  # refused: there is no file for it
                    client = opened.enter_context(socket.create_connection(("127.0.0.1", collector.port), timeout=5.0))
                    client.sendall(b"GET /healthz HTTP/1.1\r\n")
            assert eventually(lambda: is_healthy(collector.url, 1.0))
            assert eventually(trainer.report)
            assert eventually(lambda: "no complete headers in time" in collector.log.read_text())
