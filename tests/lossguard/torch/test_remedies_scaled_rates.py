import torch

from lossguard.torch.remedies import ScaledRates


def test_the_rates_are_scaled_for_one_step_and_then_what_they_were_to_the_last_digit() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.3)]
    optimizer, rates = torch.optim.SGD(groups), ScaledRates()
    for factor, expected in ((0.7, [0.1 * 0.7, 0.3 * 0.7]), (1.0, [0.1, 0.3])):
        rates.scale(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == expected
        rates.undo(optimizer)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]
