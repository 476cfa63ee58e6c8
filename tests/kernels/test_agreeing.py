"""The instruction sets of this processor agree."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder

from tests.kernels import agreeing


def test_all_sets_agree() -> None:
    with pytest.raises(SystemExit) as ended:
        agreeing.main()
    assert not ended.value.code


def test_one_that_does_not_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = CpuDecoder.forward

    def wrong(self: CpuDecoder, *rows: np.ndarray) -> np.ndarray:
        logits = forward(self, *rows)
        return logits * (1.1 if self.isa == "portable" else 1.0)

    monkeypatch.setattr(CpuDecoder, "forward", wrong)
    with pytest.raises(SystemExit) as ended:
        agreeing.main()
    assert ended.value.code
