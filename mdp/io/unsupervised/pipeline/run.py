"""The job behind `mdp luss run`: the whole way from photos to segmentation without labels, each stage in its order.

It calls what the other commands call, and skips what is done: representation, attention, clusters, labels, fine-tuning,
predictions, scores.  Only the threshold and the names of categories are chosen by label maps, those of the split that
is scored, and the page says so.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdp.io.data.selection import named, pool_of
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import RecipeError
from mdp.io.files.reading import is_file, read_bytes
from mdp.io.files.writing import make, write_text
from mdp.io.journal.progress_text import percent
from mdp.io.journal.stderr import say
from mdp.io.recipe.layers import Layer, as_layer, changed_keys, config_layer, merge, nest, resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.shelf import recipe_names
from mdp.io.run.checkpoints import remove_leftovers
from mdp.io.run.lock import locked
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.io.unsupervised.asked import Score
from mdp.io.unsupervised.pipeline.cluster import run_clustering
from mdp.io.unsupervised.pipeline.label import run_labelling
from mdp.io.unsupervised.pipeline.pictures import write_page
from mdp.io.unsupervised.pipeline.predictions import run_split_predictions
from mdp.io.unsupervised.pipeline.sweep import run_label_scores
from mdp.io.unsupervised.score import run_score

ATTENTION = "pixel_attention"
_METHOD = "pass_s"  # where none is asked for
_WITH_ATTENTION = ("swav", "pass_s")  # methods whose networks it can be trained on
_OF_BOTH = ("embedding", "hidden", "prototypes", "size", "temperature", "epsilon", "iterations")  # representation's too
_KEPT = ("model", "method", "pretrain", "finetune", "luss")  # sections that a pipeline may not change on its way


def run_pipeline(request: Request, target: str) -> dict[str, Any]:
    """All stages for a target into `request.out`, and the scores of labels and of the network that learnt them.

    Raises an MdpError, with the exit code, for anything the user has to mend; the same command goes on.
    """
    if request.out is None:
        raise RecipeError("give --out FOLDER: all stages are put into it")
    out, name = request.out, target.partition(":")[0] if not Path(target).exists() else target
    dataset, _ = named(name)
    train = f"{name}:train" if "train" in dataset.splits else f"{name}:{dataset.train[0]}"
    if dataset.val is None:
        raise RecipeError(f"{name}: has no labelled split to score on")
    layers = (nest("pretrain.datasets", [train]), *layers_of_run(request, name))
    with locked(make(out)):
        remove_leftovers(out)
        return _gone(replace(request, layers=layers, init=None), out, name, train, dataset.val)


def _gone(asked: Request, out: Path, name: str, train: str, val: str) -> dict[str, Any]:
    """What the whole way gave."""
    recipe, layers = resolve(*asked.layers), asked.layers
    _expect_same(out, as_layer(recipe), name)
    tell = _steps(asked.quiet)
    source = out / "representation"
    tell("the representation, without labels")
    _trained(run_pretraining, replace(asked, out=source))
    start = source
    if recipe.method.name in _WITH_ATTENTION and recipe.luss.labels != "activation":
        tell("pixel attention on it")
        source = out / "attention"
        _trained(run_pretraining, replace(asked, out=source, init=str(start), layers=_attention(layers)))
    tell("clusters of photos")
    run_clustering(replace(asked, out=out), str(source), train)
    tell(f"labels of {val}, and their scores")
    labelled = run_labelling(replace(asked, out=None), out, val)
    before = run_label_scores(out, val, labelled["levels"], quiet=asked.quiet)
    tell("labels of the training photos")
    split = train.rpartition(":")[2]
    run_labelling(replace(asked, out=None), out, split)
    tell("a network learns them")
    learner = out / "finetune"
    own = {"finetune": {"target": f"{out / 'labels.yaml'}:{split}"}}
    _trained(run_finetuning, replace(asked, out=learner, init=str(start), layers=(*layers, own)))
    tell(f"its predictions of {val}, and their scores")
    predictions = run_split_predictions(replace(asked, out=out), learner, name, val)
    scored = Score(predictions=predictions, target=f"{name}:{val}", root=Path(recipe.data.root),
                   out=out / "scores-finetuned")  # fmt: skip
    after = run_score(scored, quiet=True)
    dataset, _ = named(name)
    samples, _ = open_split(dataset, Path(recipe.data.root), val)
    page = write_page(out, pool_of([(dataset, samples)]), val, predictions, before, after)
    return {
        "target": name,
        "split": val,
        "labels": _short(before),
        "finetuned": _short(after),
        "page": str(page),
    }


def layers_of_run(request: Request, target: str) -> tuple[Layer, ...]:
    """The settings: over what is usual the recipe luss/TARGET that comes with mdp, unless --config has another."""
    name = f"luss/{target}"
    config = bool(request.layers and request.layers[0])
    shelved = () if config or name not in recipe_names() else (config_layer(Path(name)),)
    return (nest("method.name", _METHOD), *shelved, *request.layers)


def _attention(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers by which attention is trained: those of the representation, but for its method and schedule.

    Of the method's settings these stay that say what network and loss it is; how views are cut, the queue and how it
    begins are each stage's own.
    """
    luss, merged = resolve(*layers).luss, merge(*layers)
    method = {key: value for key, value in merged.pop("method", {}).items() if key in _OF_BOTH}
    own = {
        "name": ATTENTION,
        "area": luss.attention_area,
        "queue": luss.attention_queue,
        "shared": luss.attention_shared,
    }
    rate = {} if luss.attention_lr is None else {"lr": luss.attention_lr}
    pretrain = {"epochs": luss.attention_epochs, "steps": None, **rate}
    return (merge(merged, {"method": {**method, **own}, "pretrain": pretrain}),)


def _expect_same(out: Path, asked: Layer, target: str) -> None:
    """Keeps what a pipeline was begun with.  Raises RecipeError when something else is asked for later."""
    path = out / "pipeline.json"
    told = {"target": target, **{key: asked[key] for key in _KEPT}, "seed": asked["run"]["seed"]}
    told = json.loads(json.dumps(told))
    if not is_file(path):
        write_text(path, json.dumps(told, indent=1) + "\n")
        return
    before = json.loads(read_bytes(str(path), "pipeline"))
    changed = [*changed_keys(before, told), *changed_keys(told, before)]
    if changed:
        raise RecipeError(f"{out}: begun with another {changed[0]}; give another --out, or ask for the same")


def _steps(quiet: bool) -> Callable[[str], None]:
    """Says what comes next."""

    def tell(words: str) -> None:
        if not quiet:
            say(f"\n{words}")

    return tell


def _trained(run: Callable[[Request], Path], request: Request) -> None:
    """A training run that is done, gone on with or begun."""
    assert request.out
    try:
        state = json.loads((request.out / "status.json").read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, KeyError, TypeError):
        state = ""
    if state == "done":
        if not request.quiet:
            say(f"{request.out}: done already")
        return
    run(replace(request, resume="", hints=False))


def _short(scores: dict[str, Any]) -> dict[str, Any]:
    keys = ("miou", "miou_interval", "miou_of_categories", "image_accuracy", "f_beta", "threshold")
    return {key: scores[key] for key in keys if key in scores}


def pipeline_text(found: dict[str, Any]) -> str:
    """The scores, for people."""
    lines = [f"{found['target']} {found['split']}, mIoU of categories that were matched by the label maps:"]
    for name, words in (("labels", "labels that were made"), ("finetuned", "the network that learnt them")):
        own = found[name]
        bounds = own["miou_interval"]
        spread = f" [{percent(bounds['low'])}, {percent(bounds['high'])}]" if bounds else ""
        cut = f"   threshold {own['threshold']}" if own.get("threshold") is not None else ""
        lines.append(f"  {words:<30}{percent(own['miou']):>6}{spread}   image accuracy {percent(own['image_accuracy'])}"
                     f"   F-beta {percent(own['f_beta'])}{cut}")  # fmt: skip
    return "\n".join([*lines, f"pictures: {found['page']}"])
