#!/usr/bin/env bash
# The paper's first table with ImageNet's weights (docs/study.md): every start below on targets that no pretraining has
# seen.  From the repository's root with the datasets under $MDP_DATA and timm's tf_efficientnet_lite0 at $WEIGHTS.
#
#   examples/study/imagenet.sh                  all of it; what is done is kept, what was interrupted goes on
#   examples/study/imagenet.sh --list           the pretraining runs, one a line
#   examples/study/imagenet.sh camvid-ours-1    some of the runs
#   TARGETS=camvid SEEDS=1 examples/study/imagenet.sh
#
# Each target has pretraining runs of its own, on the other three sets; a seed is one of pretraining and of fine-tuning.
set -euo pipefail
D=examples/datasets
OUT=${STUDY:-runs/study}/imagenet
WEIGHTS=${WEIGHTS:-${MDP_DATA:?}/weights/efficientnet_lite0.safetensors}
TARGETS=${TARGETS:-camvid msrc labelmefacade}
SEEDS=${SEEDS:-3}
FRACTIONS=${FRACTIONS:-1/8}
MDP=${MDP:-mdp} # or MDP="python -m mdp", where it is not installed
CONFIG="--config examples/study/imagenet.yaml --root $MDP_DATA"
CAMVID=$D/camvid.yaml MSRC=$D/msrc.yaml CLOTHING=$D/clothing.yaml FACADE=$D/labelmefacade.yaml

# 600 steps are few: the key encoder and the bank must not lag behind by more than some of them
MULTI="--method multi_dataset --set method.hidden=256 --set method.key_momentum=0.95 --set method.bank_batches=20"
OURS="$MULTI --set method.prototypes=learnt --set method.rivals=dataset --set method.softmax_weight=1"

rows() { # name, method and its settings
  echo "supervised --method supervised"
  echo "heads --method supervised --set method.heads=datasets"
  echo "paper $MULTI"
  echo "ours $OURS"
}

pool() { # target
  case $1 in
    camvid) echo $MSRC,$CLOTHING,$FACADE ;;
    msrc) echo $CAMVID,$CLOTHING,$FACADE ;;
    labelmefacade) echo $CAMVID,$MSRC,$CLOTHING ;;
    *) echo "unknown target $1" >&2; exit 2 ;;
  esac
}

runs() { # target, name, seed, options: all rows of a seed before the next
  for target in $TARGETS; do
    for seed in $(seq 0 $((SEEDS - 1))); do
      rows | while read -r name options; do echo "$target $target-$name-$seed $seed $options"; done
    done
  done
}

pretrain() { # target, name, seed, options
  local target=$1 run=$OUT/$2 seed=$3 init=(--init "$WEIGHTS")
  shift 3
  if grep -q '"state": "done"' "$run/status.json" 2>/dev/null; then return; fi
  if ls "$run"/checkpoints/*.safetensors >/dev/null 2>&1; then init=(); fi # it is of a fresh run only
  # shellcheck disable=SC2086 - options are words
  $MDP pretrain $CONFIG --datasets "$(pool "$target")" --out "$run" --resume --quiet --set run.seed="$seed" \
    "${init[@]}" "$@" </dev/null
}

finetune() { # target
  local target=$D/$1.yaml split=test starts
  if [ "$1" = labelmefacade ]; then target=$D/$1.yaml:official_train split=official_test; fi
  starts=$(rows | while read -r name _; do echo "--start $name=run:$OUT/$1-$name-{seed}"; done)
  # shellcheck disable=SC2086
  $MDP compare $CONFIG --target "$target" --split $split --fractions "$FRACTIONS" --seeds "$SEEDS" \
    --out "$OUT/compare-$1" --start scratch --start imagenet=imagenet:"$WEIGHTS" $starts --against imagenet
}

if [ "${1:-}" = --list ]; then runs; exit; fi
while read -r target name seed options; do
  if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx -- "$name"; then continue; fi
  # shellcheck disable=SC2086
  pretrain "$target" "$name" "$seed" $options
done < <(runs)
if [ $# -eq 0 ]; then for target in $TARGETS; do finetune "$target"; done; fi
