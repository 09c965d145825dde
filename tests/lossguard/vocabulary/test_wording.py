from lossguard.vocabulary.wording import form, plural


def test_a_count_of_one_has_the_singular_and_all_others_have_the_plural() -> None:
    assert [plural(count, "step") for count in (0, 1, 2, 1200)] == ["0 steps", "1 step", "2 steps", "1,200 steps"]
    assert [plural(count, "batch is", "batches are") for count in (1, 2)] == ["1 batch is", "2 batches are"]
    assert [form(count, "run") for count in (1, 2)] == ["run", "runs"]
