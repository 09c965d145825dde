from lossguard.checkpoints.sharded.tensor_shard import writers_of


def test_each_tensor_goes_to_the_rank_with_the_fewest_bytes_so_far() -> None:
    sizes = {"a": 100, "b": 30, "c": 30, "d": 50, "e": 10}
    assert writers_of(sizes, 2) == {"a": 0, "b": 1, "c": 1, "d": 1, "e": 0}


def test_empty_tensors_are_spread_too() -> None:
    assert writers_of({"a": 0, "b": 0, "c": 0}, 3) == {"a": 0, "b": 1, "c": 2}
