from monitor.detection.interventions.batch_index import BatchIndex
from monitor.detection.rows import Rows


def test_a_skip_moves_the_batches_of_later_steps() -> None:
    batches = BatchIndex()
    batches.update(Rows.of([0, 1, 2, 3], loss=[1.0] * 4, batch_index=[0, 1, 12, None]))
    assert [batches.batch_of(step) for step in (0, 1, 2, 3, 100)] == [0, 1, 12, 13, 110]
    assert BatchIndex.from_dict({"steps": batches.steps, "offsets": batches.offsets}) == batches


def test_a_rollback_forgets_the_skips_after_it() -> None:
    batches = BatchIndex()
    batches.update(Rows.of([0, 1, 2], loss=[1.0] * 3, batch_index=[0, 11, 22]))
    batches.rewind(2)
    assert [batches.batch_of(step) for step in (0, 1, 2)] == [0, 11, 12]
