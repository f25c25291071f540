"""Criteria of fine-tuning, one file each."""
