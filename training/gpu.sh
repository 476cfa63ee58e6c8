#!/bin/bash
# The GPU path: the same commands, the 20M size. Run from the repository's root.
#   bash training/gpu.sh pack     on a machine with the corpus: rows of about a billion tokens' worth of
#                                 passes, compressed in pieces of at most 16 MiB (training/work/pieces/)
#   bash training/gpu.sh train    on the GPU machine: one piece of at most ten minutes; repeat to go on
#   bash training/gpu.sh finish   on the GPU machine: decay, export; drafters as in README.md
#   bash training/gpu.sh take NAME  anywhere: NAME.tar.* of a folder of pieces ($OUT) becomes run NAME, which
#                                 train and finish go on with
# What train and finish reach comes back in $OUT, in pieces of 16 MiB: weights alone, which is what training
# goes on from once the machine, and with it the optimiser's states, is gone.
# Not yet run on a GPU; with SIZE=tiny BATCH=4096 MICRO=2048 MINUTES=1 DECAY=20 every step runs on a CPU.
set -euo pipefail
work=training/work
size=${SIZE:-20m} batch=${BATCH:-262144} micro=${MICRO:-65536}
common=(--data "$work/packed/gpu" --batch "$batch" --micro "$micro" --lr 0.02 --embed-lr 0.003)
bring() { # the newest checkpoint of a run, as a folder that transformers loads
    python -m training.export --run "$1" --out "$work/exported/$1"
    tar -C "$work/exported" -c "$1" | split -b 16M -d -a 2 - "${OUT:?}/$1.tar."
}
case "${1:-}" in
pack)
    for epoch in 0 1 2 3 4 5 6 7; do
        python -m training.pack --length 2048 --bytes "${BYTES:-48000000}" --epoch "$epoch" --chat-share 0.02 \
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
    python -m training.train --size "$size" --run gpu "${common[@]}" --minutes "${MINUTES:-9}" --save-minutes 3
    bring gpu
    ;;
finish)
    python -m training.train --run gpu --branch gpu-decayed "${common[@]}" --decay-steps "${DECAY:-800}" \
        --minutes "${MINUTES:-8}"
    bring gpu-decayed
    ;;
take)
    mkdir -p "$work/exported"
    cat "${OUT:?}/$2".tar.* | tar -C "$work/exported" -x
    python -m training.resume --model "$work/exported/$2" --run "$2"
    ;;
*)
    echo "usage: training/gpu.sh pack | train | finish | take NAME" >&2
    exit 2
    ;;
esac
