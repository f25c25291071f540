"""The job behind `mdp probe`: a linear classifier on frozen, pooled features, by the protocols that papers report.

Shape legend: N images, D features, C classes, B images of a batch.
"""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.chance import generator
from mdp.core.linear_probe import (
    PENALTIES,
    Linear,
    average_precision,
    binary_logistic_regressions,
    logistic_regression,
    penalties,
    support_vector_machines,
)
from mdp.io.data.channels import refuse_other_channels
from mdp.io.data.loader import load
from mdp.io.data.order import stream_batches
from mdp.io.data.pool import Key, Pool
from mdp.io.data.workers import Watch
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.evaluation.scores import percent
from mdp.io.files.writing import csv_text, make, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.agreement import agree
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import World, joined
from mdp.io.recipe.layers import Layer, resolve
from mdp.io.unsupervised.activation_sheet import write_activations
from mdp.io.unsupervised.asked import Probe
from mdp.io.unsupervised.features import Features, open_features, results_folder, weights_file
from mdp.io.unsupervised.probe_images import Cut, Probed, ProbeItems, probed

_BATCH = 16  # images that the backbone sees at once
_HELD = 5  # one training image in so many chooses the penalty
_STOPPED = "stopped while images were looked at; nothing was written, run the same command again"
RULES = {
    "logistic": "logistic regression by L-BFGS on pooled features of images of both sides {size}; the penalty of the "
    "squared weights is the best of {penalties} values from 1e-5 to 1e5 on a fifth of the training images",
    "svm": "a linear support vector machine for each class on pooled features of length 1, of the central {size} "
    "pixels of images of short side {short}; squared hinge loss, C 0.5, positives weigh 2",
    "sgd": "a linear classifier by SGD on pooled features of random crops of {size} pixels, {epochs} epochs of batches "
    "of 256, momentum 0.9, rate {rate:g}, a tenth of it after 60 % and after 80 %; no weight decay",
}


class _Seen(NamedTuple):
    """The images of a split."""

    rows: Tensor  # (N, D)
    positives: Tensor  # (N, C) bool


def run_probe(asked: Probe, layer: Layer, quiet: bool = False) -> dict[str, Any]:
    """The scores of a linear classifier as JSON, and files and a picture of its activation maps beside them.

    Of `layer` the sections run, data and model count.  Raises an MdpError, in one line, for what the user has to mend.
    """
    recipe = resolve(layer)
    with stop_on_signals() as stop, joined(recipe.run.timeout) as world:
        return _scored(asked, layer, world, stop, Counter(quiet or not world.main))


def refuse_early(asked: Probe, layer: Layer) -> None:
    """Raises what each of several processes would raise at its start, as far as it takes no weights to know."""
    recipe = resolve(layer)
    _kind(asked, probed(asked.target, asked.folders, Path(recipe.data.root), recipe.run.seed))


def _rule(asked: Probe, classifier: str) -> str:
    """The protocol in words."""
    values = {"size": asked.size, "short": asked.short, "epochs": asked.epochs, "rate": asked.rate}
    return RULES[classifier].format(penalties=PENALTIES, **values)


def _kind(asked: Probe, images: Probed) -> str:
    """Which classifier is fitted.  Raises RecipeError where it is not for such images."""
    kind = asked.classifier or ("svm" if images.several else "logistic")
    if kind == "sgd" and images.several:
        raise RecipeError("--classifier sgd: it is for images of one class each (--folders); take logistic or svm")
    return kind


def _scored(asked: Probe, layer: Layer, world: World, stop: Stop, progress: Counter) -> dict[str, Any]:
    recipe = resolve(layer)
    device = set_up(recipe, world)
    images = probed(asked.target, asked.folders, Path(recipe.data.root), recipe.run.seed)
    kind = _kind(asked, images)
    features = open_features(asked.source, layer, start=asked.start, device=device)
    refuse_other_channels(features.image_channels, images.dataset)
    agree(world, recipe, [images.train.samples, images.test.samples], [], weights_file(asked.source))
    for line in (*features.lines, f"{asked.source}: {features.words}", *images.lines):
        progress.say(line)
    cut = Cut(size=asked.size, short=None if kind == "logistic" else asked.short)
    with memory_in_one_line(advice="try a smaller --size, or --device cpu"):
        probing = _Probing(asked, features, images, cut, recipe.run.seed, recipe.run.loaders, world, stop, progress)
        test = probing.look(images.test)
        train = None if kind == "sgd" else probing.look(images.train)
        found = probing.by_sgd() if train is None else None

        def finish() -> str:
            """What one process does while the others wait."""
            scores, classifier = _fitted(asked, kind, features, images, train, test, found, recipe.run.seed)
            if out := results_folder(asked.out, asked.source, "probe", f"{images.dataset.name}-{images.split}"):
                shown = _write(make(out), scores, features, classifier, images, cut)
                progress.say(f"written to {out}: scores.json, and activation maps of {shown} images")
            return json.dumps(scores)

        scores: dict[str, Any] = json.loads(world.broadcast_main(finish))
    return scores


def _fitted(
    asked: Probe, kind: str, features: Features, images: Probed, train: _Seen | None, test: _Seen,
    found: Linear | None, seed: int,
) -> tuple[dict[str, Any], Linear]:  # fmt: skip
    """The scores on the test images of a classifier that is fitted to the training images, unless it was."""
    penalty: float | None = None
    if train is not None and not train.positives.any():
        raise DatasetError(f"{images.dataset.name}: no labelled pixel in its training images")
    if train is not None and kind == "svm":
        train, test = (seen._replace(rows=F.normalize(seen.rows, dim=1)) for seen in (train, test))
        found = support_vector_machines(train.rows, train.positives)
    elif train is not None:
        found, penalty = _regression(train, images.several, seed)
    assert found is not None
    scores = {
        "source": asked.source, "features": features.words, "target": asked.target or str(asked.folders),
        "split": images.split, "classifier": kind, "rule": _rule(asked, kind), "size": asked.size,
        "train_images": len(images.train.samples), "images": len(images.test.samples), "penalty": penalty,
        **_scores(found.scores(test.rows.to(found.weight.device)), test.positives, images),
    }  # fmt: skip
    return scores, found


def _write(
    folder: Path, scores: dict[str, Any], features: Features, classifier: Linear, images: Probed, cut: Cut
) -> int:
    """Writes scores and pictures; how many images the latter show."""
    shown = write_activations(
        folder / "activations.png", features, classifier, images, cut, scores["classifier"] == "svm"
    )
    heads = ["class", "images", "score"]
    rows = ([row[head] for head in heads] for row in scores["classes"])
    write_text(folder / "results.csv", csv_text([heads, *rows]))
    write_text(folder / "scores.json", json.dumps(scores) + "\n")
    return shown


class _Probing:
    """Images to pooled features, the same on all processes: each looks at some of the batches, which stay whole."""

    def __init__(
        self, asked: Probe, features: Features, images: Probed, cut: Cut, seed: int, workers: int, world: World,
        stop: Stop, progress: Counter,
    ) -> None:  # fmt: skip
        self.asked, self.features, self.images, self.cut, self.seed = asked, features, images, cut, seed
        self.workers, self.world, self.stop, self.progress = workers, world, stop, progress

    def look(self, pool: Pool) -> _Seen:
        """The pooled features of all images of a pool, and what is in them.  Raises Preempted when asked to stop."""
        count, classes, world = len(pool.samples), len(self.images.classes), self.world
        rows, positives = torch.zeros(count, self.features.channels), torch.zeros(count, classes, dtype=torch.int64)
        firsts = range(world.rank * _BATCH, count, world.size * _BATCH)
        keys = ([(0, index) for index in range(first, min(first + _BATCH, count))] for first in firsts)
        done = 0
        for samples, pixels, own in self._batches(pool, keys, self.cut):
            rows[samples], positives[samples] = self.features.pooled(pixels).cpu(), own.long()
            done += len(samples)
            self.progress.tell(min(done * world.size, count), count)
        return _Seen(world.all_sum(rows), world.all_sum(positives) > 0)

    def _batches(
        self, pool: Pool, keys: Iterator[list[Key]], cut: Cut
    ) -> Generator[tuple[list[int], Tensor, Tensor], None, None]:
        """Numbers, images (B, K, s, s) and positives (B, C) of each list of keys."""
        watch = Watch(name=lambda key: pool.name(key[1]), stop=lambda: self.stop)
        items = ProbeItems(self.images, pool, cut, self.seed)
        with closing(load(items, keys, self.workers, watch=watch)) as loaded:
            for batch in loaded:
                if self.stop:
                    raise Preempted(_STOPPED)
                yield (
                    [item.sample for item in batch],
                    torch.stack([item.image for item in batch]),
                    torch.stack([item.positives for item in batch]),
                )
        if self.stop:
            raise Preempted(_STOPPED)

    def by_sgd(self) -> Linear:
        """The classifier of ImageNet's linear protocol, which sees a new crop of every image in every epoch."""
        pool, batch, world = self.images.train, min(256, len(self.images.train.samples)), self.world
        steps = max(1, round(self.asked.epochs * len(pool.samples) / batch))
        device, classes = self.features.device, len(self.images.classes)
        linear = torch.nn.Linear(self.features.channels, classes, device=device)
        rng = generator(self.seed, "classifier")
        with torch.no_grad():
            linear.weight.copy_(0.01 * torch.randn(linear.weight.shape, generator=rng))  # MoCo's start
            linear.bias.zero_()
        optimizer = torch.optim.SGD(linear.parameters(), lr=self.asked.rate, momentum=0.9)
        # parts that pass the backbone together, of all processes' the same ones
        firsts = [first for first in range(0, batch, _BATCH) if first // _BATCH % world.size == world.rank]
        drawn = stream_batches(self.seed, len(pool.samples), batch, 0, steps)
        keys = (keys[first : first + _BATCH] for keys in drawn for first in firsts)
        with closing(self._batches(pool, keys, Cut(size=self.asked.size, random=True))) as loaded:
            for step in range(steps):
                rows, labels = torch.zeros(batch, self.features.channels), torch.zeros(batch, dtype=torch.int64)
                for first, (_, pixels, own) in zip(firsts, loaded, strict=False):  # one step's of many
                    some = slice(first, first + len(own))
                    rows[some], labels[some] = self.features.pooled(pixels).cpu(), own.int().argmax(1)
                rows, labels = world.all_sum(rows), world.all_sum(labels)
                share = step / steps
                optimizer.param_groups[0]["lr"] = self.asked.rate * 0.1 ** ((share >= 0.6) + (share >= 0.8))
                loss = F.cross_entropy(linear(rows.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                self.progress.tell(step + 1, steps)
        return Linear(linear.weight.detach().double().cpu(), linear.bias.detach().double().cpu())


def _regression(train: _Seen, several: bool, seed: int) -> tuple[Linear, float]:
    """The logistic regression of all training images with the penalty that is best on a fifth of them."""
    order = torch.randperm(len(train.rows), generator=generator(seed, "penalty"))
    held, fitted = order[: len(order) // _HELD], order[len(order) // _HELD :]
    if not len(held):
        raise DatasetError(f"{len(order)} training images: expected {_HELD} or more to choose the penalty on")
    fit = _fits(several, train.positives.shape[1])
    best, chosen, found = -1.0, 1.0, None
    for penalty in penalties():
        found = fit(train.rows[fitted], train.positives[fitted], penalty, found)
        score = _score(found.scores(train.rows[held]), train.positives[held], several)
        if score > best:  # of equals the larger penalty
            best, chosen = score, penalty
    return fit(train.rows, train.positives, chosen, None), chosen


def _fits(several: bool, classes: int) -> Callable[[Tensor, Tensor, float, Linear | None], Linear]:
    if several:
        return binary_logistic_regressions
    return lambda rows, positives, penalty, start: logistic_regression(
        rows, positives.int().argmax(1), classes, penalty, start
    )


def _score(scores: Tensor, positives: Tensor, several: bool) -> float:
    """The mean average precision of the classes that occur, or the share of images named rightly."""
    if several:
        return float(average_precision(scores, positives).nanmean())
    return float((scores.argmax(1) == positives.int().argmax(1)).double().mean())


def _scores(scores: Tensor, positives: Tensor, images: Probed) -> dict[str, Any]:
    """What is reported of scores (N, C): mAP where images have several classes, else top-1; and each class's own."""
    if images.several:
        each = average_precision(scores, positives)
    else:
        right = (scores.argmax(1) == positives.int().argmax(1))[:, None] & positives
        each = right.sum(0).double() / positives.sum(0)
    rows = [
        {"class": name, "images": int(positives[:, i].sum()), "score": None if each[i].isnan() else float(each[i])}
        for i, name in enumerate(images.classes)
    ]
    value = _score(scores, positives, images.several)
    by_chance = float(positives.double().mean(0)[positives.any(0)].mean()) if images.several else None
    always = None if images.several else float(positives.double().mean(0).max())
    measure = "map" if images.several else "top1"
    return {"measure": measure, measure: value, "without_features": always if by_chance is None else by_chance,
            "classes": rows}  # fmt: skip


def probe_table(scores: dict[str, Any]) -> str:
    """The scores in percent, for people."""
    several = scores["measure"] == "map"
    names: Sequence[str] = [row["class"] for row in scores["classes"]]
    width = max(5, *map(len, names)) + 2
    head = f"{'class':<{width}}{'AP' if several else 'right':>8}{'images':>10}"
    lines = [f"{row['class']:<{width}}{percent(row['score']):>8}{row['images']:>10,}" for row in scores["classes"]]
    what = "mAP" if several else "top-1"
    penalty = "" if scores["penalty"] is None else f"   penalty {scores['penalty']:.3g}"
    without = "in any order" if several else "always saying the most frequent class"
    end = f"{what} {percent(scores[scores['measure']])}{penalty}   {without}: {percent(scores['without_features'])}"
    about = f"{scores['images']:,} images, {scores['classifier']} fitted to {scores['train_images']:,}"
    return "\n".join([head, *lines, "", about, end])
