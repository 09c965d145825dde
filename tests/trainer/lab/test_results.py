import json
import math

from trainer.estimate import Estimate
from trainer.lab.results import to_json


def test_numbers_that_json_lacks_are_strings() -> None:
    assert json.loads(to_json(Estimate(1.5, math.nan))) == {"mean": 1.5, "standard_error": "NaN"}
