#!/usr/bin/env bash
# The pretraining runs of docs/study.md, from the repository's root with the datasets under $MDP_DATA.
# A run that is done is kept, one that was interrupted goes on.  Names limit it to some: pretrain.sh camvid-multi seen
set -euo pipefail
D=examples/datasets
OUT=${STUDY:-runs/study}
CAMVID=$D/camvid.yaml MSRC=$D/msrc.yaml CLOTHING=$D/clothing.yaml FACADE=$D/labelmefacade.yaml
# train_300 of LabelMeFacade shares photos with its official test list: as a target it gives its official 74
SMALL=$FACADE:official_train

HEAD="--set method.hidden=256"
# 1,000 steps are few: the key encoder and the bank must not lag behind by more than some of them
QUICK="--set method.key_momentum=0.95"
MOCO="--method moco --batch-size 32 --set method.embedding=64 --set method.queue=512 --set method.groups=4"
MULTI="--method multi_dataset $HEAD $QUICK --set method.bank_batches=20"

run() { # name, datasets, options
  local name=$1 datasets=$2
  shift 2
  if grep -q '"state": "done"' "$OUT/$name/status.json" 2>/dev/null; then return; fi
  mdp pretrain --config examples/study/study.yaml --datasets "$datasets" --out "$OUT/$name" --resume --quiet "$@"
}

rows() {
  local unseen_camvid=$MSRC,$CLOTHING,$FACADE
  # the target is not in the pool
  echo "camvid-multi $unseen_camvid $MULTI"
  echo "msrc-multi $CAMVID,$CLOTHING,$FACADE $MULTI"
  echo "labelmefacade-multi $CAMVID,$MSRC,$CLOTHING $MULTI"
  # the target alone, and the target among the others
  echo "camvid-single $CAMVID $MULTI"
  echo "msrc-single $MSRC $MULTI"
  echo "labelmefacade-single $SMALL $MULTI"
  echo "seen $CAMVID,$MSRC,$CLOTHING,$FACADE $MULTI"
  echo "labelmefacade-seen $CAMVID,$MSRC,$CLOTHING,$SMALL $MULTI"
  # what people do today
  echo "camvid-supervised $unseen_camvid --method supervised --lr 0.05"
  echo "msrc-supervised $CAMVID,$CLOTHING,$FACADE --method supervised --lr 0.05"
  echo "labelmefacade-supervised $CAMVID,$MSRC,$CLOTHING --method supervised --lr 0.05"
  echo "camvid-heads $unseen_camvid --method supervised --set method.heads=datasets --lr 0.05"
  # without labels: 1,000 photos of ImageNet and those of the four sets; batches of 32, for a step costs half
  echo "moco ${MDP_DATA:?}/imagenet_sample,$CAMVID,$MSRC,$CLOTHING,$SMALL $MOCO"
  # other losses
  echo "camvid-pairs $unseen_camvid --method pixel_pairs $HEAD $QUICK"
  echo "camvid-regions $unseen_camvid --method region_bank $HEAD $QUICK --set method.queue=64"
  # mixing and sparse coding
  echo "camvid-region-mixing $unseen_camvid $MULTI --mix region"
  echo "camvid-pixel-mixing $unseen_camvid $MULTI --mix pixel"
  echo "camvid-both-mixings $unseen_camvid $MULTI --mix both"
  echo "camvid-sparse $unseen_camvid $MULTI --sparse csc2"
  # the target alone for as many epochs, not steps, as the three sets have
  echo "camvid-single-epochs $CAMVID $MULTI --steps 377 --set pretrain.warmup_steps=18"
  # what was suspected when a thousand steps gave little
  echo "camvid-no-warm-up $unseen_camvid $MULTI --set pretrain.warmup_steps=0"
}

while read -r name datasets options; do
  if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx -- "$name"; then continue; fi
  # shellcheck disable=SC2086 - options are words
  run "$name" "$datasets" $options
done < <(rows)
