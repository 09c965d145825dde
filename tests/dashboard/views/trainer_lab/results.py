"""Results of the trainer's lab as its JSON has them, one of each sweep."""

import json
from typing import Any

Result = dict[str, Any]

SWITCH: Result = {
    "recipe": "drill",
    "seed": 1,
    "held_out_loss": 2.0,
    "held_out_loss_se": 0.03,
    "bits_per_byte": 2.9,
    "bits_per_character": 2.95,
    "log_z": 6.7,
}
SIZE: Result = {"width": 16, "seed": 1, "parameters": 10_000, "tokens": 200_000, "held_out_loss": 2.9}
UNSTABLE: Result = {
    "safeguard": "none",
    "seed": 1,
    "final_loss": 0.25,
    "jumps": [{"begin": 10, "end": 30, "level": 1.0, "peak": 2.0}, {"begin": 50, "end": 60, "level": 0.5, "peak": 2.0}],
}
WAY: Result = {
    "trained_with": "teacher forcing",
    "loss_floor": 1.2,
    "models": [
        {
            "seed": 1,
            "held_out_loss": 1.5,
            "exposure": {
                "true_prefixes": {"mean": 0.3, "standard_error": 0.01},
                "own_prefixes": {"mean": 0.35, "standard_error": 0.01},
                "bias": {"mean": 0.05, "standard_error": 0.01},
            },
            "true_inputs": 1.0,
        }
    ],
}
TEMPERATURE: Result = {"seed": 1, "temperature": 0.5, "loss": 2.0, "entropy": 0.9, "hits": 0.4}
GRADIENTS: Result = {
    "probability": 0.001,
    "cross_entropy": 0.999,
    "squared_error_one_wrong": 0.004,
    "squared_error_spread": 0.002,
}
CALIBRATION: Result = {
    "smoothing": 0.1,
    "seed": 1,
    "loss": 2.1,
    "surest_loss": 0.2,
    "loss_floor": 0.105,
    "bins": [[10, 0.5, 0.6], [30, 0.9, 0.9]],
}
ABILITIES: Result = {
    "seed": 1,
    "steps": [0, 500],
    "kinds": {"bracket": [5.5, 3.4]},
    "counts": {"bracket": 900},
    "positions": [2.7, 2.0],
    "copied": [5.5, 6.3],
    "first_time": [5.5, 6.4],
}
SWEEPS = (SWITCH, SIZE, UNSTABLE, WAY, TEMPERATURE, GRADIENTS, CALIBRATION, ABILITIES)


def lines(*results: Result) -> bytes:
    return "\n".join(map(json.dumps, results)).encode()
