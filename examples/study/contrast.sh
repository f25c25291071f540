#!/usr/bin/env bash
# The study of docs/pixel-contrast.md, from the repository's root with the datasets under $MDP_DATA, after
# `examples/study/pretrain.sh camvid-multi msrc-multi`.  Cells that are done are kept, an interrupted one goes on.
# First `contrast.sh weight`, which looks at CamVid's validation images only; then `contrast.sh camvid msrc`.
set -euo pipefail
D=examples/datasets
OUT=${STUDY:-runs/study}
COMMON="--config examples/study/contrast.yaml --fractions 1/8 --keep"
# anchors: ten pixels of every class that has more in a crop; a memory of 200 regions and 200 pixels a class
CONTRAST="criterion.name=pixel_contrast&criterion.max_views=10"
BATCH="$CONTRAST&criterion.memory=off"
MEMORY="$CONTRAST&criterion.capacity=200&criterion.temperature=0.07"

rows() { # target, weight
  for from in scratch "run:$OUT/$1-multi"; do
    name=${from%%:*}
    echo "--start $name-ce=$from"
    echo "--start $name-batch=$from?$BATCH&criterion.weight=$2"
    echo "--start $name-memory=$from?$MEMORY&criterion.weight=$2"
  done
  echo "--start run-sources=run:$OUT/$1-multi?$MEMORY&criterion.weight=$2&criterion.source_prototypes=true"
  echo "--against scratch-ce --against run-ce"
}

# shellcheck disable=SC2046,SC2086
for target in ${@:-weight camvid msrc}; do
  case $target in
    weight)
      starts=$(for from in scratch "run:$OUT/camvid-multi"; do for weight in 0.1 1; do
        echo "--start ${from%%:*}-batch-$weight=$from?$BATCH&criterion.weight=$weight"
        echo "--start ${from%%:*}-memory-$weight=$from?$MEMORY&criterion.weight=$weight"
      done; done)
      mdp compare $COMMON --seeds 2 --target $D/camvid.yaml --split val --out "$OUT/contrast-weight" $starts ;;
    camvid | msrc)
      mdp compare $COMMON --seeds ${SEEDS:-5} --target "$D/$target.yaml" --split test --out "$OUT/contrast-$target" \
        $(rows "$target" "${WEIGHT:-0.1}") ;;
    *) echo "unknown target $target" >&2; exit 2 ;;
  esac
done
