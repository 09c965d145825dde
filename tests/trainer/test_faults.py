import numpy as np
import pytest
import torch

from tests.trainer.data.windows import make_batches
from trainer.config import ModelConfig, OptimizerConfig
from trainer.data.batches import TokenBatches
from trainer.data.tokenizer import Bytes
from trainer.data.windows import PADDING, Windows
from trainer.errors import UsageError
from trainer.faults import FAULTS, NGRAM_TOKENS, Fault, FaultyBatches, StateFaults, parse_fault
from trainer.model import GPT
from trainer.optimization.schedule import build_optimizer


def test_a_fault_is_written_as_kind_step_and_count() -> None:
    assert parse_fault("corrupted_batches@320x12") == Fault("corrupted_batches", 320, 12)
    assert parse_fault("bit_flip@7") == Fault("bit_flip", 7, FAULTS["bit_flip"].count)


@pytest.mark.parametrize("text", ["bit_flip", "bit_flip@", "bit_flip@3x0", "bit_flip@-1", "@3", "bit flip@3"])
def test_a_fault_that_is_written_wrongly_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(UsageError, match="KIND@STEPxN"):
        parse_fault(text)


@pytest.mark.parametrize("kind", [name for name, kind in FAULTS.items() if kind.on_data])
def test_a_fault_in_the_data_is_keyed_by_batch_index_so_a_replay_meets_it_again(kind: str) -> None:
    clean = make_batches()
    faulty = FaultyBatches(clean, [Fault(kind, 5, 3)])
    for index in range(12):
        struck = not faulty[index].targets_BT.equal(clean[index].targets_BT)
        assert struck == (5 <= index < 8)
        assert faulty[index].targets_BT.equal(faulty[index].targets_BT)
        assert faulty[index].inputs_BT.equal(clean[index].inputs_BT) or (
            struck and kind in ("repeated_ngram", "rare_token")
        )
        assert faulty[index].targets_BT.dtype == torch.int64


@pytest.mark.parametrize("kind", [name for name, kind in FAULTS.items() if kind.on_data])
def test_a_fault_in_the_data_leaves_padding_as_it_is(kind: str) -> None:
    windows = Windows([np.arange(1, 6, dtype=np.uint8) + number for number in range(8)], 6, padded=True)
    clean = TokenBatches(windows, size=8, batch_size=4, seed=0, vocab_size=256, tokenizer=Bytes())
    struck, intact = FaultyBatches(clean, [Fault(kind, 0, 1)])[0].targets_BT, clean[0].targets_BT
    assert (struck == PADDING).equal(intact == PADDING)
    assert not struck.equal(intact)


def test_a_repeated_ngram_is_real_text_that_teaches_nothing_but_itself() -> None:
    batch = FaultyBatches(make_batches(), [Fault("repeated_ngram", 5, 1)])[5]
    assert batch.inputs_BT[:, 1:].equal(batch.targets_BT[:, :-1])
    assert batch.inputs_BT[0].equal(batch.inputs_BT[-1])
    assert batch.inputs_BT[:, NGRAM_TOKENS:].equal(batch.inputs_BT[:, :-NGRAM_TOKENS])


def test_a_fault_placed_by_the_step_strikes_what_the_run_uses_there_and_again_on_a_replay() -> None:
    faulty, clean = FaultyBatches(make_batches(), [Fault("random_targets", 5, 2)], at_steps=True), make_batches()
    for step, index in [(4, 104), (5, 105), (4, 300), (5, 301)]:
        faulty.reach(step, index)
    struck = [i for i in (5, 104, 105, 106, 107, 301) if not faulty[i].targets_BT.equal(clean[i].targets_BT)]
    assert struck == [105, 106]


def _trained() -> tuple[GPT, torch.optim.AdamW]:
    torch.manual_seed(0)  # a flip makes NaN of a weight that has grown beyond 1
    model = GPT(ModelConfig(layers=1, width=16, context=4))
    optimizer = build_optimizer(model, OptimizerConfig())
    model(torch.zeros(1, 4, dtype=torch.int64)).square().sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("kind", ["bit_flip", "mantissa_flip"])
def test_a_flip_in_the_weights_strikes_once_and_not_again_after_a_rollback(kind: str) -> None:
    model, optimizer = _trained()
    faults = StateFaults([Fault(kind, 3, 2)], seed=0)
    before = torch.nn.utils.parameters_to_vector(model.parameters())
    struck = []
    for step in [0, 1, 2, 3, 4, 2, 3, 4]:
        faults.begin(step, model, optimizer)
        now = torch.nn.utils.parameters_to_vector(model.parameters())
        struck.append(int((now != before).sum()))
        before = now
    assert struck == [0, 0, 0, 2, 0, 0, 0, 0]


@pytest.mark.parametrize(("kind", "factor"), [("moment_flip", 1e30), ("moment_mantissa_flip", 1.05)])
def test_a_flip_in_the_moments_leaves_the_weights_and_changes_one_moment(kind: str, factor: float) -> None:
    model, optimizer = _trained()
    weights = torch.nn.utils.parameters_to_vector(model.parameters())
    before = torch.cat([state["exp_avg"].flatten() for state in optimizer.state.values()])
    StateFaults([Fault(kind, 0, 1)], seed=0).begin(0, model, optimizer)
    after = torch.cat([state["exp_avg"].flatten() for state in optimizer.state.values()])
    assert torch.equal(weights, torch.nn.utils.parameters_to_vector(model.parameters()))
    (place,) = (before != after).nonzero().flatten()
    ratio = abs(after[place] / before[place]).item()
    assert max(ratio, 1 / ratio) > factor


def test_lost_second_moments_leave_the_first_and_the_step_counts() -> None:
    model, optimizer = _trained()
    first = [state["exp_avg"].clone() for state in optimizer.state.values()]
    StateFaults([Fault("lost_second_moments", 0, 1)], seed=0).begin(0, model, optimizer)
    states = list(optimizer.state.values())
    assert [bool(state["exp_avg_sq"].any()) for state in states] == [False] * len(states)
    assert all(torch.equal(before, state["exp_avg"]) for before, state in zip(first, states, strict=True))
    assert {state["step"].item() for state in states} == {1.0}


def test_a_spoilt_gradient_has_as_many_nans_as_asked_and_only_in_its_step() -> None:
    model, optimizer = _trained()
    faults = StateFaults([Fault("nan_gradient", 1, 1)], seed=0)
    found = []
    for step in range(3):
        faults.begin(step, model, optimizer)
        model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
        found.append(sum(int(each.grad.isnan().sum()) for each in model.parameters() if each.grad is not None))
        optimizer.zero_grad(set_to_none=False)
    assert found == [0, 1, 0]


def test_a_kick_of_the_learning_rate_lasts_its_steps_and_ends_with_a_rollback() -> None:
    model, optimizer = _trained()
    faults = StateFaults([Fault("lr_kick", 2, 3)], seed=0)
    factors = []
    for step in [0, 1, 2, 3, 4, 5, 2, 3]:
        faults.begin(step, model, optimizer)
        factors.append(faults.lr_factor)
    assert factors == [1, 1, 30, 30, 30, 1, 1, 1]
    again = StateFaults([Fault("lr_kick", 2, 9)], seed=0)
    for step in [2, 3, 1, 2, 3]:
        again.begin(step, model, optimizer)
    assert again.lr_factor == 1
