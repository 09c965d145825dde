"""Tables on pages: the first column stays, numbers are on the right."""

import json

from streamlit.testing.v1 import AppTest


def shown() -> AppTest:
    def script() -> None:
        import pandas as pd

        from dashboard.views.table import show_table

        rows = {"Signal": "loss", "Most extreme": "7.3", "Note": "why"}
        show_table(pd.DataFrame([rows]), key="t", numbers={"Most extreme"})

    return AppTest.from_function(script).run()


def test_the_first_column_stays_and_numbers_are_on_the_right() -> None:
    columns = json.loads(shown().dataframe[0].proto.columns)
    assert columns["Signal"]["pinned"]
    assert columns["Most extreme"]["alignment"] == "right"
    assert "Note" not in columns
