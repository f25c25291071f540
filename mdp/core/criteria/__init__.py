"""Criteria of fine-tuning, one file each.

Logits are (B, C, H, W), labels (B, H, W) with `IGNORE` for pixels that do not count; every loss is in float32.
"""

# The functions are handed on by `mdp.core`, not here: some have the name of their file, which they would hide.
