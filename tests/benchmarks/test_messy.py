import re
from pathlib import Path

import pytest

from benchmarks import messy

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "messy-run.svg"


@pytest.mark.slow
def test_the_picture_of_a_messy_run_shows_what_the_detection_makes_of_it_today(tmp_path: Path) -> None:
    messy.main(["--picture", str(tmp_path / "messy-run.svg")])
    drawn, shown = (re.findall(r"<circle .*", path.read_text()) for path in (tmp_path / "messy-run.svg", PICTURE))
    assert drawn == shown, (
        "python -m benchmarks.messy --picture docs/pictures/messy-run.svg, and its text in detection.md"
    )
    assert len(shown) == 7
