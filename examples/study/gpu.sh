#!/usr/bin/env bash
# The comparison of docs/study.md at crops of 224 on one GPU, in nine minutes: EfficientNet-Lite0 from ImageNet's weights
# and ResNet-50 from random ones, target CamVid, which no pool has.  From the repository's root with the datasets under
# $MDP_DATA and the weights of tf_efficientnet_lite0 at $WEIGHTS.
#
#   examples/study/gpu.sh             all rows in their order, until the time is up; what is done is kept
#   examples/study/gpu.sh --list      the rows and the images that each sees
#   examples/study/gpu.sh ROW...      some of them: one row, one command
#   MINIATURE=1 examples/study/gpu.sh the same in small on a CPU, to see that it runs
#
# A row that the time cuts short goes on where it was when the script is called again.  `mdp compare --show $STUDY`
# prints these tables beside those of compare.sh.
set -euo pipefail
D=examples/datasets
OUT=${STUDY:-runs/study}
WEIGHTS=${WEIGHTS:-${MDP_DATA:?}/weights/efficientnet_lite0.safetensors}
LIMIT=${LIMIT:-540} # seconds, for all rows of a call
SEEDS=${SEEDS:-1}
MDP=${MDP:-mdp} # or MDP="python -m mdp", where it is not installed; the rows of EfficientNet-Lite0 need timm
SMALL=""
DEVICE=cuda
STEPS=800 TUNING=300 BATCH=64
LITE="--set model.backbone=timm:tf_efficientnet_lite0"
R50="--set model.backbone=resnet50"
if [ -n "${MINIATURE:-}" ]; then
  OUT=${STUDY:-runs/study-miniature} DEVICE=cpu STEPS=2 TUNING=2 BATCH=4
  SMALL="--set run.workers=0 --set run.threads=1 --set pretrain.crop=64 --set pretrain.batch_size=4
    --set pretrain.warmup_steps=0 --set pretrain.validate_images=1 --set pretrain.images=24 --set finetune.batch_size=2
    --set finetune.crop=[64,64] --set finetune.validate_images=1 --set finetune.validate_steps=2 --set eval.images=2
    --set run.check=false --set eval.scale=[96,72] --set eval.boundary=false --set model.channels=16"
  R50="$R50 --set model.width=16"
fi
POOL=$D/msrc.yaml,$D/clothing.yaml,$D/labelmefacade.yaml
# 800 steps are few: the key encoder and the bank must not lag behind by more than some of them
MULTI="--set method.name=multi_dataset --set method.key_momentum=0.95 --set method.bank_batches=20"
OWN="$MULTI --set method.prototypes=learnt --set method.rivals=dataset"
SUPERVISED="--set method.name=supervised --set pretrain.lr=0.05"

rows() { # name, kind, options
  echo "gpu-lite0-multi pretrain $LITE $MULTI --init $WEIGHTS"
  echo "gpu-lite0-own pretrain $LITE $OWN --init $WEIGHTS"
  echo "gpu-lite0-supervised pretrain $LITE $SUPERVISED --init $WEIGHTS"
  echo "gpu-resnet50-own pretrain $R50 $OWN"
  echo "gpu-resnet50-supervised pretrain $R50 $SUPERVISED"
  echo "compare-camvid-gpu-lite0 compare $LITE --start imagenet=imagenet:$WEIGHTS --start multi-set=run:$OUT/gpu-lite0-multi" \
    "--start own-rivals=run:$OUT/gpu-lite0-own --start supervised=run:$OUT/gpu-lite0-supervised"
  echo "compare-camvid-gpu-resnet50 compare $R50 --start scratch --start own-rivals=run:$OUT/gpu-resnet50-own" \
    "--start supervised=run:$OUT/gpu-resnet50-supervised"
}

run() { # name, kind, options
  local name=$1 kind=$2 left=$((LIMIT - SECONDS))
  shift 2
  if [ $left -le 0 ]; then
    echo "$name: the $LIMIT seconds are up; call again to go on" >&2
    exit 4
  fi
  # a run that is told to stop writes a checkpoint first
  local within="timeout --signal=TERM --kill-after=30 $left"
  local common="--config examples/study/gpu.yaml --device $DEVICE $SMALL --out $OUT/$name"
  if [ "$kind" = pretrain ]; then
    if grep -q '"state": "done"' "$OUT/$name/status.json" 2>/dev/null; then return; fi
    # --init is of a fresh run only
    if ls "$OUT/$name"/checkpoints/*.safetensors >/dev/null 2>&1; then set -- "${@/--init/}" && set -- "${@/$WEIGHTS/}"; fi
    # shellcheck disable=SC2068,SC2086 - options are words, and those taken out are none
    $within $MDP pretrain $common --datasets "$POOL" --steps $STEPS --resume --quiet $@
  else
    # shellcheck disable=SC2068,SC2086
    $within $MDP compare $common --target $D/camvid.yaml --split test --fractions 1/8 --seeds "$SEEDS" --steps $TUNING $@
  fi
  echo "$name: done, $SECONDS s since the script began" >&2
}

while read -r name kind options; do
  if [ "${1:-}" = --list ]; then
    if [ "$kind" = pretrain ]; then images=$((STEPS * BATCH)); else images="$((TUNING * 16)) a start and seed"; fi
    echo "$name: $kind, $images images"
    continue
  fi
  if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx -- "$name"; then continue; fi
  # shellcheck disable=SC2086 - options are words
  run "$name" "$kind" $options </dev/null
done < <(rows)
