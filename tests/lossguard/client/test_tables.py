from hypothesis import given
from hypothesis import strategies as st

from lossguard.client.tables import original_name, safe_name


@given(st.text(st.sampled_from("=+-@' \tab"), max_size=6))
def test_a_name_comes_back_and_is_no_formula_meanwhile(name: str) -> None:
    safe = safe_name(name)
    assert original_name(safe) == name
    assert safe.lstrip(" ")[:1] not in tuple("=+-@")


def test_a_name_that_is_no_formula_is_left_alone() -> None:
    for name in ("loss", "eval/loss", "a=b", "'quoted'", "1-2", ""):
        assert safe_name(name) == original_name(name) == name
