"""The scores of every threshold of attention from the counts of one pass (2106.03149, section 4.4).

Shape legend: K generated categories, C true ones.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mdp.core.luss import AreaScores, Marks, area_scores, at_threshold, match, matching_counts


def threshold_scores(
    marks: Marks, categories: int, generated: int, thresholds: Sequence[int], names: Tensor | None = None
) -> Iterator[AreaScores]:
    """The scores of areas at thresholds in hundredths.

    Categories are matched anew at each, as the released code does, unless `names` (K + 1,) are given.
    """
    before, matched = torch.empty(0), names
    for threshold in thresholds:
        cut = at_threshold(marks, threshold)
        if names is None:
            counts = matching_counts(cut, categories, generated)  # (K, C)
            matched = matched if torch.equal(counts, before) else match(counts)
            before = counts
        assert matched is not None
        yield area_scores(cut, matched, categories)
