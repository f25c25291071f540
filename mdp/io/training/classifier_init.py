"""What fine-tuning takes from a pretraining run besides its weights: prototypes, and which of them stand for a class.

The target's classifier is made of them (`finetune --head-init prototypes`), and criteria may ask for them.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

from mdp.core.classifier_init import Related, fit_classifier, related_classes, standing_for
from mdp.core.contrast import class_logits, pixel_rows
from mdp.core.criteria import Source
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.networks import EmbeddingNetwork, Segmentor
from mdp.core.prototype_bank import ClassSums, Prototypes, add, class_sums, empty_bank, prototypes, push
from mdp.io.data.crops import FinetuneItems, crop_batch, stack_crops
from mdp.io.data.loader import load as load_items
from mdp.io.data.order import stream_batches
from mdp.io.data.pool import Pool
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.methods import find_method
from mdp.io.run.checkpoint import read_tensors
from mdp.io.run.opened import method_state, open_run, trained_network
from mdp.io.run.record import PRETRAIN

_CROPS = 128  # looked at: enough for some thousand features, few enough to take seconds


class _Pretrained(NamedTuple):
    """What a pretraining run has learnt."""

    network: EmbeddingNetwork  # in evaluation mode
    known: Prototypes  # (S, D)
    names: tuple[str, ...]  # of the S classes
    temperature: float


def start_classifier_(network: Segmentor, weights: Path, recipe: Recipe, pool: Pool, device: torch.device) -> str:
    """Sets the network's classifier, as far as its classes are known, and says what came from where.

    Raises RecipeError when the weights have no prototypes.
    """
    found = _pretrained(weights, device, "--head-init prototypes")
    features, labels, sums = [], [], None
    for feature, vectors, label in _crops(found.network, recipe, pool, device):
        own = class_sums(vectors, label, pool.union.size, unit=True)
        sums = own if sums is None else add(sums, own)
        features.append(torch.cat([pixel_rows(feature.float()), pixel_rows(vectors)], 1))
        labels.append(label.flatten())
    assert sums is not None
    known, names = found.known, found.names
    related = related_classes(pool.union.names, _means(sums, device), names, known)
    rows = torch.cat(features)[torch.cat(labels) != IGNORE]  # (N, F + D)
    chosen = [label for label, source in enumerate(related) if source is not None]
    if not chosen:
        raise RecipeError(f"{weights}: none of the target's classes is in the first crops; use --head-init random")
    sources = torch.tensor([source.source for source in related if source is not None], device=device)
    own_prototypes = Prototypes(known.vectors[sources], known.present[sources])
    width = rows.shape[1] - known.vectors.shape[1]
    logits = class_logits(rows[:, width:], own_prototypes, found.temperature, unit=True)  # (N, c)
    weight, bias = fit_classifier(rows[:, :width], logits)
    with torch.no_grad():
        classifier = network.classifier
        classifier.weight[chosen] = weight[:, :, None, None].cpu()
        assert classifier.bias is not None
        classifier.bias[chosen] = bias.cpu()
    return f"classifier from prototypes: {_report(pool.union.names, related, names)}"


def source_of(weights: Path, key: str, recipe: Recipe, pool: Pool, device: torch.device) -> tuple[Source, str]:
    """What a pretraining run gives a criterion, and a line that says which classes stand for which.

    Raises RecipeError, naming the key that asks for it, where the weights have no prototypes.
    """
    found, sums = _pretrained(weights, device, key), None
    for _, vectors, label in _crops(found.network, recipe, pool, device):
        own = class_sums(vectors, label, pool.union.size, unit=True)
        sums = own if sums is None else add(sums, own)
    assert sums is not None
    related = related_classes(pool.union.names, _means(sums, device), found.names, found.known)
    stand = standing_for(pool.union.names, related, found.names)  # (C, S)
    projection = {name: tensor.clone() for name, tensor in found.network.projection_head.state_dict().items()}
    line = f"{int(found.known.present.sum())} prototypes of {weights} to contrast with: "
    line += f"{_standing(pool.union.names, related, stand, found.names)}; negatives of all other classes"
    return Source(found.known, stand.to(device), projection), line


def _crops(
    network: EmbeddingNetwork, recipe: Recipe, pool: Pool, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features (B, F, h, w), embeddings (B, D, h, w) and labels (B, h, w) of the first crops of the target."""
    settings, seed = recipe.finetune, recipe.run.seed
    count = max(1, _CROPS // settings.batch_size)
    keys = stream_batches(seed, len(pool.samples), settings.batch_size, 0, count)
    with (
        torch.no_grad(),
        closing(load_items(FinetuneItems(pool, settings, seed), keys, 0, stack=stack_crops)) as items,
    ):
        for item in items:
            batch = crop_batch(item, device, pool.statistics)
            feature = network.features(batch.images)
            vectors = torch.nn.functional.normalize(network.projection_head(feature).float(), dim=1)
            yield feature, vectors, downsample_labels(batch.labels, *network.grid)


def _means(sums: ClassSums, device: torch.device) -> Prototypes:
    """The prototypes of a bank of one batch: the means of its images."""
    classes, channels = sums.sums.shape
    return prototypes(push(empty_bank(classes, channels, 1, device), sums))


def _pretrained(weights: Path, device: torch.device, key: str) -> _Pretrained:
    """What the file has learnt.  Raises RecipeError, naming what asks for it, unless it has prototypes."""
    needs = f"{key} needs a pretraining run of mdp whose method has prototypes"
    if weights.suffix != ".safetensors" or read_tensors(weights)[1].get("format") != "mdp":
        raise RecipeError(f"{weights}: {needs}; this is another file")
    opened = open_run(weights)
    if opened.record.kind != PRETRAIN:
        raise RecipeError(f"{weights}: {needs}; this is a {opened.record.kind} run")
    name, settings = opened.recipe.method.name, opened.recipe.method.settings
    method, state = find_method(name), method_state(opened, device)
    known, temperature = method.known_prototypes(state, settings), method.temperature(settings)
    if known is None or temperature is None:
        raise RecipeError(f"{weights}: {needs}; {name} has none")
    network = cast(EmbeddingNetwork, trained_network(opened))
    return _Pretrained(network.to(device).eval(), known, opened.union.names, temperature)


def _standing(names: tuple[str, ...], related: list[Related | None], stand: Tensor, sources: tuple[str, ...]) -> str:
    parts = []
    for name, relation, row in zip(names, related, stand, strict=True):
        label, own = name.rpartition("/")[2], ", ".join(sources[i] for i in row.nonzero().flatten().tolist())
        near = f" (nearest, {relation.cosine:.2f})" if relation and not relation.same_name else ""
        parts.append(f"{label} has {own or 'none'}{near}")
    return "; ".join(parts)


def _report(names: tuple[str, ...], related: list[Related | None], sources: tuple[str, ...]) -> str:
    parts = []
    for name, relation in zip(names, related, strict=True):
        label = name.rpartition("/")[2]
        if relation is None:
            parts.append(f"{label} at random")
        else:
            how = "same name" if relation.same_name else f"nearest, {relation.cosine:.2f}"
            parts.append(f"{label} from {sources[relation.source]} ({how})")
    return "; ".join(parts)
