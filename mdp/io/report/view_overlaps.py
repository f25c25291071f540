"""How much the views of an image overlap, in a report: whether a method compares the same things or different ones."""

from collections.abc import Sequence

from mdp.io.pictures.html import bar, folded, table, text
from mdp.io.report.run_facts import RunFacts


def overlaps_section(runs: Sequence[tuple[str, RunFacts]]) -> str:
    """A table of the intersections over union of large views, for each run that has named ones (HTML); "" without."""
    return "".join(
        folded(f"How much two large views overlap: {name}", _table(run)) for name, run in runs if run.overlaps
    )


def _table(run: RunFacts) -> str:
    pairs: Sequence[int] = run.overlaps["pairs"]
    heads = ["nothing shared", *(f"{low / 10:.1f} to {(low + 1) / 10:.1f}" for low in range(10))]
    total = sum(pairs)
    rows = [(text(head), bar(count / total, f"{count / total:.1%}")) for head, count in zip(heads, pairs, strict=True)]
    caption = f"Intersection over union of the large views of the first {run.overlaps['images']:,} images"
    return table(caption, ("IoU", "pairs of views"), rows)
