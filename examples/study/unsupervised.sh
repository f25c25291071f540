#!/usr/bin/env bash
# The study of docs/unsupervised.md on generated photos, from the repository's root; it needs no data.
# What is done is kept, what was stopped goes on.  Names limit it to some parts: unsupervised.sh swav-pass table
set -euo pipefail
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec python examples/study/unsupervised.py "$@"
