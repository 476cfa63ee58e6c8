"""Rows of which the target wrote a part itself: what its drafters are distilled on.

    python -m training.generated --data training/work/packed/a --rows 2000 \
        --out training/work/packed/g

A row takes a piece of the data, then as many tokens as the target goes on with, and so once more:
greedily in every second row, at temperature 0.8 in the others. A drafter is asked on text of the
target, not on the data's; what it must learn beyond the data is how that text goes round and how it
repeats names.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu.sampling import choose

from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import folder_model
from training.fetch import HERE
from training.train import Rows

GIVEN, WRITTEN = 320, 192
"""Tokens of the data and of the target, twice in a row."""
TOGETHER = 64
TEMPERATURE = 0.8

Int32 = npt.NDArray[np.int32]


def continued(decoder: CpuDecoder, given: Int32, seed: int) -> Int32:
    """given [n, width] tokens of the data -> [n, width], pieces replaced by the target's own."""
    count, width = given.shape
    rows = given.astype(np.int32)
    slots = np.arange(count, dtype=np.int32)
    temperatures = np.where(slots % 2, np.float32(TEMPERATURE), np.float32(0.0))
    for start in range(0, width - GIVEN - WRITTEN + 1, GIVEN + WRITTEN):
        cut = start + GIVEN
        for slot in slots:
            piece = rows[slot, start : cut - 1]
            places = np.arange(start, cut - 1, dtype=np.int32)
            none = np.empty(0, np.int32)
            decoder.forward(piece, np.full(len(piece), slot, np.int32), places, none)
        for at in range(cut, cut + WRITTEN):
            places = np.full(count, at - 1, np.int32)
            logits = decoder.forward(rows[:, at - 1].copy(), slots, places, slots)
            rows[:, at] = choose(
                logits, temperature=temperatures, seed=seed, choice=slots, output_index=at
            )
        # the piece of the data that comes next has to see the last token written
        last = np.full(count, cut + WRITTEN - 1, np.int32)
        decoder.forward(rows[:, cut + WRITTEN - 1].copy(), slots, last, np.empty(0, np.int32))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--first-row", type=int, default=0)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    options = LoadOptions(
        weight_format="bf16", slots=TOGETHER, slot_tokens=1025, threads=args.threads
    )
    files = folder_model(args.target, name="target", source="folder")
    decoder = load_decoder(files, options).decoder
    assert isinstance(decoder, CpuDecoder)
    data = Rows(args.data).data
    last = min(args.first_row + args.rows, len(data))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.with_suffix(".bin").open("wb") as out:
        for begin in range(args.first_row, last, TOGETHER):
            given = np.asarray(data[begin : min(begin + TOGETHER, last)])
            out.write(continued(decoder, given, args.seed + begin).astype(np.uint16).tobytes())
            print(f"{min(begin + TOGETHER, last) - args.first_row} of {args.rows} rows", flush=True)
    rows, width = last - args.first_row, data.shape[1]
    args.out.with_suffix(".json").write_text(json.dumps({"width": width, "rows": rows}))


if __name__ == "__main__":
    main()
