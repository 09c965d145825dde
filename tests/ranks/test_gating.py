"""The scenarios of `gating`: all ranks take a step, or none does."""

from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_a_nan_on_one_rank_skips_the_update_on_all(results: list[dict[str, Any]]) -> None:
    for each in results:
        for kind, found in each["a_nan_on_one_rank_skips_the_update_on_all"].items():
            assert found == {"verdicts": [0.0, 0.0, 1.0, 0.0], "moves": [True, False, True]}, kind
