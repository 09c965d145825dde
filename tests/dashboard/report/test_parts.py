"""The element of a picture holds the values of a figure, and nothing that a person wrote leaves it."""

import json

from dashboard.data.facts import Curve
from dashboard.figures.curves import run_figure
from dashboard.figures.marks import Marks
from dashboard.report.parts import picture
from db.models import Event
from db.queries import Series


def test_a_name_that_people_chose_ends_neither_the_element_nor_its_label() -> None:
    name = '</script><script>alert(1)</script><!-- "'
    curve = Curve(
        Series([0, 1], [0, 1], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1, 1], [0, 0], [1.0, 2.0]), {}
    )
    event = Event(segment=0, step=1, kind=name, details={"why": name})
    element = picture(run_figure({name: curve}, Marks(events=[event], last_step=1)), label=name)
    opening, _, rest = element.partition('<script type="application/json">')
    content, _, end = rest.partition("</script>")
    assert (opening.count("<"), opening.count('"'), end) == (1, 8, "</div>")
    assert "<" not in content
    assert json.loads(content)["layout"]["height"] > 100
