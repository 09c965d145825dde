import io
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from trainer.lab.gradients import PROBABILITIES, VOCAB_SIZE, gradients_at, plot_gradients, show_gradients


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_gradients_are_those_of_the_formulas(p: float) -> None:
    """Cross-entropy: p - 1. Squared error: 2 p (p - 1 - (sum of squares - p)), from the softmax's derivative."""
    row = gradients_at(p)
    assert row.cross_entropy == pytest.approx(1 - p, rel=1e-5)
    spread = p**2 + (1 - p) ** 2 / (VOCAB_SIZE - 1)
    assert row.squared_error_spread == pytest.approx(abs(2 * p * (p - 1 - (spread - p))), rel=1e-3, abs=1e-7)
    one_wrong = p**2 + (1 - p) ** 2
    assert row.squared_error_one_wrong == pytest.approx(abs(2 * p * (p - 1 - (one_wrong - p))), rel=1e-3, abs=1e-7)


def test_where_the_model_is_sure_and_wrong_only_cross_entropy_has_a_gradient() -> None:
    row = gradients_at(0.001)
    assert row.cross_entropy == pytest.approx(0.999)
    assert row.squared_error_spread == pytest.approx(0.0020, abs=5e-5)
    assert row.squared_error_one_wrong == pytest.approx(0.0040, abs=5e-5)


def test_the_table_and_the_plot_show_all_three() -> None:
    rows = [gradients_at(p) for p in (0.001, 0.5)]
    output = io.StringIO()
    show_gradients(rows, Console(file=output, width=150))
    assert "0.9990" in output.getvalue()
    assert len(ET.fromstring(plot_gradients(rows)).findall("{http://www.w3.org/2000/svg}polyline")) == 3
