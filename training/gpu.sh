#!/bin/bash
# The GPU path: the same commands, the 20M size. Run from the repository's root.
#   bash training/gpu.sh pack     on a machine with the corpus: rows of about a billion tokens' worth of
#                                 passes, compressed in pieces of at most 16 MiB (training/work/pieces/)
#   bash training/gpu.sh train    on the GPU machine: one piece of at most ten minutes; repeat to go on
#   bash training/gpu.sh finish   on the GPU machine: decay, export to $OUT; drafters as in README.md
# Not yet run on a GPU.
set -euo pipefail
work=training/work
case "${1:-}" in
pack)
    for epoch in 0 1 2 3 4 5 6 7; do
        python -m training.pack --length 2048 --bytes 48000000 --epoch "$epoch" --chat-share 0.02 \
            --out "$work/packed/gpu$epoch"
    done
    python - <<'PY'
import json, pathlib
import numpy as np
parts = sorted(pathlib.Path("training/work/packed").glob("gpu[0-9].json"))
meta = [json.loads(p.read_text()) for p in parts]
with open("training/work/packed/gpu.bin", "wb") as out:
    for part in parts:
        out.write(part.with_suffix(".bin").read_bytes())
whole = {"width": meta[0]["width"], "rows": sum(m["rows"] for m in meta)}
pathlib.Path("training/work/packed/gpu.json").write_text(json.dumps(whole))
PY
    mkdir -p "$work/pieces"
    tar -C "$work" -c packed/gpu.bin packed/gpu.json tokenizer | xz -T0 -3 |
        split -b 16M -d -a 3 - "$work/pieces/corpus.tar.xz."
    ls -l "$work/pieces"
    ;;
train)
    [ -e "$work/packed/gpu.bin" ] || cat "$work"/pieces/corpus.tar.xz.* | tar -C "$work" -xJ
    python -m training.train --size 20m --run gpu --data "$work/packed/gpu" --batch 262144 \
        --micro 65536 --lr 0.02 --embed-lr 0.003 --minutes 9 --save-minutes 3
    ;;
finish)
    python -m training.train --run gpu --branch gpu-decayed --data "$work/packed/gpu" --batch 262144 \
        --micro 65536 --lr 0.02 --embed-lr 0.003 --decay-steps 800 --minutes 8
    python -m training.export --run gpu-decayed --out "${OUT:?}/target"
    ;;
*)
    echo "usage: training/gpu.sh pack | train | finish" >&2
    exit 2
    ;;
esac
