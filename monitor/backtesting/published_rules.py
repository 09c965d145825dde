"""Published spike rules, reimplemented from their descriptions, to compare ours with. They detect nothing in a run.

Each takes losses[N] and grad norms[N] (NaN where not logged) and returns alarms[N].
"""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from monitor.detection.rows import Bools, Floats, Rows

Rule = Callable[[Floats, Floats], Bools]


def rows_before(x: Floats, rows: int) -> Floats:
    """[N, rows]: the rows before each row; NaN where there are none."""
    return sliding_window_view(np.concatenate([np.full(rows, np.nan), x])[:-1], rows)


def consecutive(mask: Bools, rows: int) -> Bools:
    return np.asarray(sliding_window_view(np.concatenate([np.zeros(rows - 1, dtype=bool), mask]), rows).all(axis=1))


def megatron(loss: Floats, grad: Floats) -> Bools:
    """Flag losses that are not finite, or ten times the largest of the first 100 losses."""
    return ~np.isfinite(loss) | (loss > 10 * np.nanmax(loss[:100]))


def lightning(loss: Floats, grad: Floats) -> Bools:
    """Three times the mean of the last 10, or not finite."""
    return np.asarray(~np.isfinite(loss) | (loss > 3 * rows_before(loss, 10).mean(axis=1)))


def axolotl(loss: Floats, grad: Floats) -> Bools:
    """Flag losses above 5 on three consecutive rows."""
    return consecutive(loss > 5, 3)


def foundry(loss: Floats, grad: Floats) -> Bools:
    """Twice the mean of the last 100, on five consecutive rows."""
    return consecutive(loss > 2 * rows_before(loss, 100).mean(axis=1), 5)


def internevo(loss: Floats, grad: Floats) -> Bools:
    """Flag one and a half times the loss before."""
    return loss > 1.5 * rows_before(loss, 1)[:, 0]


def olmo(loss: Floats, grad: Floats) -> Bools:
    """Mean plus six standard deviations of the last 128, loss or grad norm."""
    return deviations(loss, 128) | deviations(grad, 128)


def olmo_loss(loss: Floats, grad: Floats) -> Bools:
    """Apply OLMo's rule to the loss alone."""
    return deviations(loss, 128)


def deviations(x: Floats, rows: int, limit: float = 6.0) -> Bools:
    past = rows_before(x, rows)
    return np.asarray(x > past.mean(axis=1) + limit * past.std(axis=1))


def spike_score(loss: Floats, grad: Floats) -> Bools:
    """Seven standard deviations of the last 1000 (a rule for counting spikes afterwards)."""
    return deviations(loss, 1000, 7.0)


def flagscale(loss: Floats, grad: Floats) -> Bools:
    """A fifth above the last loss that was accepted."""
    alarms, accepted = np.zeros(len(loss), dtype=bool), np.inf
    for k, value in enumerate(loss):
        alarms[k] = not value <= 1.2 * accepted
        accepted = accepted if alarms[k] else value
    return alarms


def log_mad(loss: Floats, grad: Floats) -> Bools:
    """Log loss above the median of the last 100 by eight scaled median absolute deviations."""
    x = np.log(np.maximum(loss, 1e-9))
    past = rows_before(x, 100)
    middle = np.median(past, axis=1)
    return np.asarray(x - middle > 8 * 1.4826 * np.median(np.abs(past - middle[:, None]), axis=1) + 1e-9)


def cusum(loss: Floats, grad: Floats) -> Bools:
    """Two-sided CUSUM of (x - median) / MAD over the last 200, slack 1, limit 6, restarted at each alarm."""
    past = rows_before(loss, 200)
    middle = np.median(past, axis=1)
    scale = 1.4826 * np.median(np.abs(past - middle[:, None]), axis=1) + 1e-9
    alarms, up, down = np.zeros(len(loss), dtype=bool), 0.0, 0.0
    for k, z in enumerate(np.nan_to_num((loss - middle) / scale)):
        up, down = max(up + z - 1, 0.0), max(down - z - 1, 0.0)
        if max(up, down) > 6:
            alarms[k], up, down = True, 0.0, 0.0
    return alarms


RULES: dict[str, Rule] = {
    "Megatron, 10x the first 100": megatron,
    "Lightning, 3x the mean of 10": lightning,
    "axolotl, above 5 three times": axolotl,
    "llm-foundry, 2x the mean of 100 five times": foundry,
    "InternEvo, 1.5x the one before": internevo,
    "OLMo, 6 sd of 128": olmo,
    "OLMo, loss only": olmo_loss,
    "FlagScale, 20% above the last accepted": flagscale,
    "log-MAD, 8 of 100": log_mad,
    "trainscope, CUSUM of 200": cusum,
    "OLMo-2 spike score, 7 sd of 1000": spike_score,
}


def alarm_steps(rule: Rule, rows: Rows) -> list[int]:
    """The steps at which a rule alarms on a curve."""
    loss = rows.metrics["loss"]
    grad = rows.metrics.get("grad_norm", np.full(len(loss), np.nan))
    with np.errstate(invalid="ignore"):
        return [int(step) for step in rows.steps[rule(loss, grad)]]
