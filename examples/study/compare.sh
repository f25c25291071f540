#!/usr/bin/env bash
# The comparisons of docs/study.md, after pretrain.sh.  Cells that are done are kept.  compare.sh camvid does one
# target; FRACTIONS=1/8 limits the shares of the labels.  The tables hold 1/8, of camvid also 1/4, not camvid-longer.
set -euo pipefail
D=examples/datasets
OUT=${STUDY:-runs/study}
COMMON="--config examples/study/study.yaml --seeds ${SEEDS:-3} --fractions ${FRACTIONS:-1/8,1/4,1}"

main_rows() { # target
  echo "--start scratch --start moco=run:$OUT/moco --start supervised=run:$OUT/$1-supervised"
  echo "--start single-set=run:$OUT/$1-single --start multi-set=run:$OUT/$1-multi"
}

# shellcheck disable=SC2046,SC2086
for target in ${@:-camvid msrc labelmefacade camvid-ablation camvid-longer}; do
  case $target in
    camvid)
      mdp compare $COMMON --target $D/camvid.yaml --split test --out "$OUT/compare-camvid" \
        $(main_rows camvid) --start multi-set-seen=run:"$OUT"/seen --against scratch --against single-set ;;
    msrc)
      mdp compare $COMMON --target $D/msrc.yaml --split test --out "$OUT/compare-msrc" \
        $(main_rows msrc) --start multi-set-seen=run:"$OUT"/seen --against scratch --against single-set ;;
    labelmefacade)
      mdp compare $COMMON --target $D/labelmefacade.yaml:official_train --split official_test \
        --out "$OUT/compare-labelmefacade" $(main_rows labelmefacade) \
        --start multi-set-seen=run:"$OUT"/labelmefacade-seen --against scratch --against single-set ;;
    camvid-ablation)
      mdp compare $COMMON --fractions 1/8 --target $D/camvid.yaml --split test --out "$OUT/compare-camvid-ablation" \
        --start multi-set=run:"$OUT"/camvid-multi \
        --start prototype-head=run:"$OUT"/camvid-multi?finetune.head_init=prototypes \
        --start backbone-only=run:"$OUT"/camvid-multi?finetune.load=[backbone] \
        --start region-mixing=run:"$OUT"/camvid-region-mixing --start pixel-mixing=run:"$OUT"/camvid-pixel-mixing \
        --start both-mixings=run:"$OUT"/camvid-both-mixings --start sparse-coding=run:"$OUT"/camvid-sparse \
        --start pixel-pairs=run:"$OUT"/camvid-pairs --start region-bank=run:"$OUT"/camvid-regions \
        --start multi-head=run:"$OUT"/camvid-heads --start no-warm-up=run:"$OUT"/camvid-no-warm-up \
        --start single-set-epochs=run:"$OUT"/camvid-single-epochs ;;
    camvid-longer)
      mdp compare $COMMON --fractions 1/8 --steps 300 --target $D/camvid.yaml --split test \
        --out "$OUT/compare-camvid-longer" --start scratch --start supervised=run:"$OUT"/camvid-supervised \
        --start multi-set=run:"$OUT"/camvid-multi ;;
    *) echo "unknown target $target" >&2; exit 2 ;;
  esac
done
