#!/usr/bin/env bash
# The study of docs/unlabelled.md, from the repository's root with the datasets under $MDP_DATA.  What is done is kept,
# what was interrupted goes on:  examples/study/unlabelled.sh pretrain retrieve finetune
set -euo pipefail
D=examples/datasets
OUT=${STUDY:-runs/study}/unlabelled
CONFIG="--config examples/study/unlabelled.yaml --root ${MDP_DATA:?}"
# 1,000 photos of ImageNet and those of the four sets; train_300 of LabelMeFacade is no target here
POOL=$MDP_DATA/imagenet_sample,$D/camvid.yaml,$D/msrc.yaml,$D/clothing.yaml,$D/labelmefacade.yaml
STEPS=${STEPS:-600}
SEEDS=${SEEDS:-3}

# a queue of 1,024 and a key encoder that follows within 100 steps: the run is short
COMMON="--set method.queue=1024 --set method.key_momentum=0.99 --set method.groups=4 --set method.embedding=64"
SIZES="--set method.size=96 --set method.small_size=48 --set method.neighbours.k=5"

rows() { # name, method and its settings: each row adds one thing to the row before
  # equal compute: a step of two views costs 1.33 forwards in all, one with four small ones 2.33
  echo "moco --method moco --steps $((STEPS * 7 / 4))"
  local plain="--set method.auto_augment=0 --set method.neighbours.weight=0"
  echo "small-views --method knn_moco --steps $STEPS $SIZES $plain --set method.min_overlap=0"
  echo "constraint --method knn_moco --steps $STEPS $SIZES $plain"
  echo "auto-augment --method knn_moco --steps $STEPS $SIZES --set method.neighbours.weight=0"
  # the first quarter of the run without neighbours; an epoch has 73 steps
  echo "neighbours --method knn_moco --steps $STEPS $SIZES --set method.neighbours.warmup_epochs=$((STEPS / 292))"
}

for part in ${@:-pretrain retrieve finetune}; do
  case $part in
    pretrain)
      for seed in $(seq 0 $((SEEDS - 1))); do
        while read -r name options; do
          run=$OUT/$name-$seed
          if grep -q '"state": "done"' "$run/status.json" 2>/dev/null; then continue; fi
          # shellcheck disable=SC2086 - options are words
          mdp pretrain $CONFIG --datasets "$POOL" --out "$run" --resume --quiet --set run.seed="$seed" $COMMON $options \
            </dev/null
        done < <(rows)
      done ;;
    retrieve)
      for target in msrc camvid; do
        ask="--target $D/$target.yaml:test --root $MDP_DATA --size 256 --quiet"
        for seed in $(seq 0 $((SEEDS - 1))); do
          while read -r name _; do
            if [ -e "$OUT/$name-$seed/retrieve/$target-test/scores.json" ]; then continue; fi
            mdp retrieve "$OUT/$name-$seed" $ask </dev/null
          done < <(rows)
          if [ ! -e "$OUT/scratch-$seed/$target-test/scores.json" ]; then
            mdp retrieve scratch $ask --config examples/study/unlabelled.yaml --seed "$seed" \
              --out "$OUT/scratch-$seed/$target-test"
          fi
        done
        if [ ! -e "$OUT/colors/$target-test/scores.json" ]; then
          mdp retrieve colors $ask --out "$OUT/colors/$target-test"
        fi
      done ;;
    finetune)
      for target in msrc camvid; do
        starts=$(rows | while read -r name _; do echo "--start $name=run:$OUT/$name-{seed}"; done)
        # shellcheck disable=SC2086
        mdp compare $CONFIG --target $D/$target.yaml --split test --fractions 1/8 --seeds "$SEEDS" \
          --out "$OUT/fcn-$target" $starts --start scratch --against moco
      done ;;
    *) echo "unknown part $part" >&2; exit 2 ;;
  esac
done
