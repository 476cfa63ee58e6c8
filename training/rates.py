"""Learning rates of several optimisers: as they were given, and what a schedule leaves of them."""

from torch.optim import Optimizer


def left(gone: float, of: float) -> float:
    """What a linear decay over `of` has left of the rate; all of it where none was asked for."""
    return max(0.0, 1 - gone / of) if of else 1.0


class Rates:
    """To be made before the optimisers' saved states are loaded, which bring rates of their own."""

    def __init__(self, *optims: Optimizer) -> None:
        self.optims = optims
        self.base = [[group["lr"] for group in optim.param_groups] for optim in optims]

    def scale(self, factor: float) -> None:
        """Give every group its rate times `factor`."""
        for optim, rates in zip(self.optims, self.base, strict=True):
            for group, rate in zip(optim.param_groups, rates, strict=True):
                group["lr"] = rate * factor
