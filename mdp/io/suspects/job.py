"""The job behind `mdp suspects`: a dataset's own labels, ranked by how strongly a model disagrees with them.

Of an image only numbers are kept; the few that the page shows are read again.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mdp.core.label_quality import Disagreement
from mdp.core.label_shift import Shift, best_shift
from mdp.core.labels import IGNORE
from mdp.io.data.pool import Pool
from mdp.io.data.selection import named, pool_of, refuse_one_class
from mdp.io.datasets._dataset import open_split, open_training, refuse_unlabelled
from mdp.io.errors import RecipeError
from mdp.io.evaluation.counts import Reading
from mdp.io.files.reading import printable
from mdp.io.files.writing import make, write_text
from mdp.io.journal.counter import Counter, number_of
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import stop_on_signals
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import Layer, Recipe, resolve
from mdp.io.suspects.asked import SuspectsQuestion
from mdp.io.suspects.classifiers import Classifier, Folds, of_run
from mdp.io.suspects.evidence import Evidence, gather
from mdp.io.suspects.page import Shown, suspects_page
from mdp.io.unsupervised.features import Features, open_features, results_folder
from mdp.label_space import LabelSpace

BACKGROUND = ("background", "other", "others", "null", "void", "unlabeled", "unlabelled", "various", "clutter", "stuff")
_STRIDE = 16  # of frozen features, by dilating the last stage
_LISTED = 1000  # regions in the JSON
_PAIRS = 30  # of classes in confusion
_PRINTED = 10  # lines of each table
RULE = (
    "doubt: of connected regions where guess and label differ, the mean log-probability of the guess less that of the "
    "label, above what is usual for regions with that label, times the square root of the region's share of its image; "
    "in standard deviations of that among these regions; an image has that of its most doubtful region.  quality: the "
    "soft minimum (0.1) of the given labels' probabilities, low where labels are doubtful.  gain: how much stronger "
    "the photo's edges are under the label map's where it is moved to, in units of the edges around, beyond what is "
    "usual in the split"
)


class _Region(NamedTuple):
    """A region, and how much speaks against it."""

    doubt: float
    image: int
    region: Disagreement


def run_suspects(
    asked: SuspectsQuestion,
    layer: Layer,
    quiet: bool = False,
    also: Callable[[int, Tensor, Tensor], None] = lambda *_: None,
    features: Features | None = None,
) -> tuple[dict[str, Any], Path | None]:
    """Ranks the labels of a split and writes suspects.json and suspects.html; returns the facts and their folder.

    Of `layer` the sections run, data and model count.  `also` sees the number, labels and class probabilities of each
    image; `features` stand for those of the source.  Raises an MdpError, in item line, for what the user has to mend.
    """
    recipe, progress = resolve(layer), Counter(quiet)
    device = set_up(recipe, ALONE)
    pool, split, line = _pool(asked.target, Path(recipe.data.root))
    progress.say(line)
    with stop_on_signals() as stop, memory_in_one_line(advice="try a smaller --size, or --device cpu"):
        reading = Reading(workers=recipe.run.loaders, stop=stop, tell=progress.tell)
        if asked.folds is None:
            classifier = of_run(asked.source, pool, recipe, device)
        else:
            taken = features or open_features(asked.source, layer, stride=_STRIDE, start=asked.start, device=device)
            for each in taken.lines:
                progress.say(each)
            classifier = Folds(taken, pool, asked.folds, asked.size, recipe.run.seed).classifier(reading)
        progress.say(f"labels are doubted by {classifier.words}")
        if classifier.seen:
            progress.say(f"warning: {classifier.seen}; a model agrees with labels it has learnt: give --folds 5")
        evidence = gather(pool, classifier, reading, also)
        ranking = _Ranking(pool, evidence)
        facts = _facts(asked, split, classifier, recipe, ranking)
        name = f"{pool.union.spaces[0].name}-{split}"
        folder = results_folder(asked.out, asked.source, "suspects", name)
        if folder:
            page = suspects_page(facts, _shown(ranking, classifier, asked.shown), pool.union.spaces[0])
            _write(make(folder), facts, page)
            progress.say(f"written to {folder}: suspects.json and suspects.html")
    return facts, folder


def _pool(target: str, root: Path) -> tuple[Pool, str, str]:
    """The images whose labels are doubted, their split, and a line about them."""
    dataset, split = named(target)
    if not dataset.labels.classes:
        raise RecipeError(f"{dataset.name}: no labels, so that there is nothing to doubt")
    refuse_one_class([dataset])
    refuse_unlabelled(dataset, split, "doubt")
    samples, line = open_split(dataset, root, split) if split else open_training(dataset, root)
    split = split or next(name for name in dataset.train if line.startswith(f"{dataset.name} {name}:"))
    return pool_of([(dataset, samples)]), split, line


class _Ranking:
    """The evidence in order."""

    def __init__(self, pool: Pool, evidence: Evidence) -> None:
        self.pool, self.evidence = pool, evidence
        self.space: LabelSpace = pool.union.spaces[0]
        self.usual = evidence.usual_gains()
        usual = evidence.usual()
        regions = [
            _Region(float(doubt), index, region)
            for index, looked in evidence.images.items()
            for doubt, region in zip(evidence.doubts(looked.regions, usual), looked.regions, strict=True)
        ]
        regions.sort(key=lambda item: (-item.doubt, item.image))
        self.labelled = [item for item in regions if item.region.label != IGNORE]
        self.forgotten = [item for item in regions if self._nothing(item.region.label)]
        moves = [(index, evidence.shift_of(index, self.usual)) for index in evidence.images]
        self.moves: list[tuple[int, Shift]] = [(index, move) for index, move in moves if move]
        self.moves.sort(key=lambda item: (-item[1].gain, item[0]))

    def _nothing(self, label: int) -> bool:
        """Whether it is no label, or the name of what has none."""
        return label == IGNORE or self.space.classes[label].lower() in BACKGROUND


def _facts(
    asked: SuspectsQuestion, split: str, classifier: Classifier, recipe: Recipe, ranking: _Ranking
) -> dict[str, Any]:
    """Everything as JSON."""
    doubts: dict[int, float] = {}
    for item in ranking.labelled:
        doubts.setdefault(item.image, item.doubt)
    moves, images = dict(ranking.moves), ranking.evidence.images
    ranked = sorted(images, key=lambda index: (-doubts.get(index, 0.0), index))
    return {
        "format": "mdp-suspects", "version": 1,
        "source": asked.source, "doubted_by": classifier.words, "folds": asked.folds,
        "out_of_fold": classifier.out_of_fold, "seen": classifier.seen or None,
        "target": ranking.space.name, "split": split, "root": recipe.data.root, "images_in_all": len(images),
        "rule": RULE,
        "all_maps": _move(best_shift(ranking.usual, ranking.usual * 0)) if ranking.moves else None,
        "confusions": _confusions(ranking),
        "regions": [_region(item, ranking) for item in ranking.labelled[:_LISTED]],
        "forgotten": [_region(item, ranking) for item in ranking.forgotten[:_LISTED]],
        "shifted": [{**_files(index, ranking), **_move(move)} for index, move in ranking.moves[:_LISTED]],
        "images": [
            {**_files(index, ranking), "doubt": round(doubts.get(index, 0.0), 4),
             "quality": _number(images[index].quality),
             "shift": _move(moves[index]) if index in moves else None}
            for index in ranked
        ],
    }  # fmt: skip


def _files(index: int, ranking: _Ranking) -> dict[str, Any]:
    sample = ranking.pool.samples[index]
    return {"image": sample.image, "labels": sample.labels}


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _move(move: Shift) -> dict[str, Any]:
    return {"down": move.down, "right": move.right, "gain": round(move.gain, 4)}


def _region(item: _Region, ranking: _Ranking) -> dict[str, Any]:
    region = item.region
    label = None if region.label == IGNORE else ranking.space.classes[region.label]
    return {
        **_files(item.image, ranking),
        "box": [region.box.left, region.box.top, region.box.width, region.box.height],
        "label": label, "guess": ranking.space.classes[region.guess], "doubt": round(item.doubt, 4),
        "share": round(region.share, 5), "confidence": round(region.confidence, 4), "margin": round(region.margin, 4),
    }  # fmt: skip


def _confusions(ranking: _Ranking) -> list[dict[str, Any]]:
    """Pairs of classes whose pixels are called each other, those that lose the largest shares first."""
    counts, mostly, names = ranking.evidence.confusion.double(), ranking.evidence.mostly, ranking.space.classes
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).tolist()
    pairs = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names)) if shares[a][b] + shares[b][a] > 0]
    pairs.sort(key=lambda pair: -(shares[pair[0]][pair[1]] + shares[pair[1]][pair[0]]))
    return [
        {"first": names[a], "second": names[b], "first_called_second": round(shares[a][b], 4),
         "second_called_first": round(shares[b][a], 4), "images": int(mostly[a, b] + mostly[b, a])}
        for a, b in pairs[:_PAIRS]
    ]  # fmt: skip


# Files


def _shown(ranking: _Ranking, classifier: Classifier, count: int) -> Shown:
    """What the page shows, read again."""

    def guess(index: int, image: Tensor, size: tuple[int, int]) -> Tensor:
        return classifier.probabilities(index, image, size).argmax(0)

    once = _one_an_image(ranking.labelled)[:count], _one_an_image(ranking.forgotten)[:count]
    regions, forgotten = ([(item.image, item.region, item.doubt) for item in some] for some in once)
    return Shown(ranking.pool, guess, regions, forgotten, ranking.moves[: max(1, count // 2)])


def _one_an_image(regions: Sequence[_Region]) -> list[_Region]:
    """The first of each image."""
    firsts: dict[int, _Region] = {}
    for item in regions:
        firsts.setdefault(item.image, item)
    return list(firsts.values())


def _write(folder: Path, facts: dict[str, Any], page: str) -> None:
    write_text(folder / "suspects.html", page)
    write_text(folder / "suspects.json", json.dumps(facts, indent=1) + "\n")


# For people


def suspects_table(facts: dict[str, Any]) -> str:
    """The strongest suspects of each kind."""
    how = "out of fold" if facts["out_of_fold"] else "by the run's own classes"
    lines = [f"{facts['target']} {facts['split']}: {number_of(facts['images_in_all'], 'image')}, doubted {how}"]
    lines += ["", "doubt  share  label -> guess"]
    lines += [_line(item) for item in facts["regions"][:_PRINTED]]
    if facts["forgotten"]:
        lines += ["", "without a label, or background:"]
        lines += [_line(item) for item in facts["forgotten"][:_PRINTED]]
    lines += ["", " gain  maps that fit better when moved (pixels)"]
    lines += [
        f"{item['gain']:5.2f}  {item['right']:+} right, {item['down']:+} down  "
        f"{printable(item['labels'] or item['image'])}"
        for item in facts["shifted"][: _PRINTED // 2]
    ]
    lines += ["", "called each other (share of the first, of the second; images where most of one is)"]
    lines += [
        f"{item['first_called_second']:5.0%}  {item['second_called_first']:5.0%}  {item['images']:5}  "
        f"{printable(item['first'])}, {printable(item['second'])}"
        for item in facts["confusions"][: _PRINTED // 2]
    ]
    return "\n".join(lines)


def _line(item: dict[str, Any]) -> str:
    label = "no label" if item["label"] is None else item["label"]
    box = " ".join(map(str, item["box"]))
    return (
        f"{item['doubt']:5.2f}  {item['share']:5.1%}  {printable(label)} -> {printable(item['guess'])}  "
        f"{printable(item['image'])} at {box}"
    )
