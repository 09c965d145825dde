import io
import math
from dataclasses import replace

from rich.console import Console

from trainer.lab.means import show_means
from trainer.lab.switches import LabResult

RESULT = LabResult(
    recipe="drill",
    seed=1,
    loss=1.0,
    held_out_loss=2.0,
    held_out_loss_se=0.1,
    perplexity=7.0,
    bits_per_token=3.0,
    bits_per_byte=3.0,
    bits_per_character=3.0,
    grad_norm=1.0,
    log_z=1.0,
    own_continuations=None,  # type: ignore[arg-type]  # no column
    tokens_per_parameter=1.0,
    flops=1.0,
    flops_6nd=1.0,
    tokens_per_second=None,
    mfu=None,
)


def test_each_recipe_has_one_row_of_means_over_its_seeds() -> None:
    results = [
        RESULT,
        replace(RESULT, recipe="other", held_out_loss=math.nan, bits_per_byte=None),
        replace(RESULT, seed=2, held_out_loss=2.2),
        replace(RESULT, recipe="other", seed=2, bits_per_byte=None),
    ]
    output = io.StringIO()
    show_means(results, Console(file=output, width=150))
    drill, other = (line for line in output.getvalue().splitlines() if "drill" in line or "other" in line)
    assert "2.10 +- 0.10" in drill
    assert [cell.strip() for cell in other.strip("\u2502").split("\u2502")][2:5] == ["nan", "7", "-"]
    assert "seeds 1, 2" in output.getvalue()
