"""What a step of `training.stopping` learns: rows of the data, and among them rows of circles."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.train import Rows


def led(row: Tensor, end: int, turn: int, every: bool) -> Tensor:
    """row [n] with its first token, and if `every` those of its documents, replaced by the end, of
    two one, in turns: packed documents are attended one by one, so that none ever sees the end that
    it follows, but engines put one before a prompt."""
    starts = ((row[:-1] == end) & (row[1:] != end)).nonzero().flatten() + 1 if every else row[:0]
    starts = torch.cat((torch.zeros(1, dtype=torch.long), starts))[turn % 2 :: 2]
    return row.index_fill(0, starts, end)


class Circles:
    """Rows of `training.circles` and `training.refrains` together, shuffled; `name` stands for them
    in a run's positions."""

    def __init__(self, files: list[Path]) -> None:
        self.name = "+".join(file.name for file in files)
        widths = [Rows(file).data.shape[1] for file in files]
        self.tokens, self.kinds = (
            np.concatenate(
                [
                    np.fromfile(file.with_suffix(end), kind).reshape(-1, width)
                    for file, width in zip(files, widths, strict=True)
                ]
            )
            for end, kind in ((".bin", np.uint16), (".kinds", np.uint8))
        )
        self.order = np.random.default_rng(0).permutation(len(self.tokens))

    def read(self, position: int) -> tuple[Tensor, npt.NDArray[np.uint8]]:
        """A row and what is to be learned after each of its tokens."""
        at = self.order[position % len(self.order)]
        return torch.from_numpy(self.tokens[at].astype(np.int64)), self.kinds[at]


class Mixture:
    """Steps of about `batch` tokens, about `share` of them circles: first the rows of the data,
    then those of circles. A step's places are the positions of its first row of each."""

    def __init__(self, data: Path, circles: list[Path], batch: int, share: float, end: int) -> None:
        self.data, self.circles, self.end = Rows(data), Circles(circles), end
        self.names = data.name, self.circles.name
        width, circle_width = self.data.data.shape[1] - 1, self.circles.tokens.shape[1] - 1
        self.rounds = round(batch * share / circle_width)
        self.texts = round((batch - self.rounds * circle_width) / width)
        self.rows = self.texts + self.rounds
        self.tokens = self.texts * width + self.rounds * circle_width

    def __str__(self) -> str:
        rows = f"{self.texts} rows of the data and {self.rounds} of circles"
        return f"{rows} a step, {self.tokens} tokens"

    def read(self, number: int, places: list[int]) -> tuple[Tensor, npt.NDArray[np.uint8] | None]:
        """Row `number` of the step at those places, and its kinds if it is one of circles."""
        if number < self.texts:
            at = places[0] + number
            return led(self.data.read(at, 1)[0], self.end, at, every=False), None
        at = places[1] + number - self.texts
        row, kinds = self.circles.read(at)
        return led(row, self.end, at, every=True), kinds

    def after(self, places: list[int]) -> list[int]:
        """The places of the step after the one at those."""
        return [places[0] + self.texts, places[1] + self.rounds]
