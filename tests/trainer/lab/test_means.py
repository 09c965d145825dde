import io

from rich.console import Console

from trainer.lab.means import COLUMNS, show_means


def test_each_recipe_has_one_row_of_means_over_its_seeds() -> None:
    fields = dict.fromkeys(COLUMNS, 1.0)
    results = [
        {"recipe": "drill", "seed": 1} | fields | {"held_out_loss": 2.0},
        {"recipe": "other", "seed": 1} | fields | {"held_out_loss": "NaN", "bits_per_byte": None},
        {"recipe": "drill", "seed": 2} | fields | {"held_out_loss": 2.2},
        {"recipe": "other", "seed": 2} | fields | {"bits_per_byte": None},
    ]
    output = io.StringIO()
    show_means(results, Console(file=output, width=150))
    drill, other = (line for line in output.getvalue().splitlines() if "drill" in line or "other" in line)
    assert "2.10 ± 0.10" in drill
    assert [cell.strip() for cell in other.strip("│").split("│")][2:5] == ["nan", "1", "-"]
    assert "seeds 1, 2" in output.getvalue()
