"""`finetune --head-init prototypes`: the target's classifier from a pretraining run, its prototypes and some crops."""

from contextlib import closing
from pathlib import Path
from typing import cast

import torch

from mdp.core.classifier_init import Related, fit_classifier, related_classes
from mdp.core.contrast import class_logits, pixel_rows
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.networks import EmbeddingNetwork, Segmentor
from mdp.core.prototype_bank import Prototypes, add, class_sums, empty_bank, prototypes, push
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


def start_classifier_(network: Segmentor, weights: Path, recipe: Recipe, pool: Pool, device: torch.device) -> str:
    """Sets the network's classifier, as far as its classes are known, and says what came from where.

    Raises RecipeError when the weights have no prototypes.
    """
    embedding, known, names, temperature = _source(weights, device)
    features, labels, sums = [], [], None
    count = max(1, _CROPS // recipe.finetune.batch_size)
    keys = stream_batches(recipe.run.seed, len(pool.samples), recipe.finetune.batch_size, 0, count)
    crops = FinetuneItems(pool, recipe.finetune, recipe.run.seed)
    with torch.no_grad(), closing(load_items(crops, keys, 0, stack=stack_crops)) as items:
        for item in items:
            batch = crop_batch(item, device, pool.statistics)
            feature = embedding.features(batch.images)  # (B, F, h, w)
            vectors = torch.nn.functional.normalize(embedding.projection_head(feature).float(), dim=1)  # (B, D, h, w)
            label = downsample_labels(batch.labels, *embedding.grid)  # (B, h, w)
            own = class_sums(vectors, label, pool.union.size, unit=True)
            sums = own if sums is None else add(sums, own)
            features.append(torch.cat([pixel_rows(feature.float()), pixel_rows(vectors)], 1))
            labels.append(label.flatten())
    assert sums is not None
    # a bank of one batch: its prototypes are the means of these crops
    means = prototypes(push(empty_bank(pool.union.size, vectors.shape[1], 1, device), sums))
    related = related_classes(pool.union.names, means, names, known)
    rows = torch.cat(features)[torch.cat(labels) != IGNORE]  # (N, F + D)
    chosen = [label for label, source in enumerate(related) if source is not None]
    if not chosen:
        raise RecipeError(f"{weights}: none of the target's classes is in the first crops; use --head-init random")
    sources = torch.tensor([source.source for source in related if source is not None], device=device)
    own_prototypes = Prototypes(known.vectors[sources], known.present[sources])
    width = rows.shape[1] - known.vectors.shape[1]
    logits = class_logits(rows[:, width:], own_prototypes, temperature, unit=True)  # (N, c)
    weight, bias = fit_classifier(rows[:, :width], logits)
    with torch.no_grad():
        classifier = network.classifier
        classifier.weight[chosen] = weight[:, :, None, None].cpu()
        assert classifier.bias is not None
        classifier.bias[chosen] = bias.cpu()
    return _report(pool.union.names, related, names)


def _source(weights: Path, device: torch.device) -> tuple[EmbeddingNetwork, Prototypes, tuple[str, ...], float]:
    """The pretrained embedding network in evaluation mode, its prototypes, their names, and the temperature."""
    needs = "--head-init prototypes needs a pretraining run of mdp whose method has prototypes"
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
    return network.to(device).eval(), known, opened.union.names, temperature


def _report(names: tuple[str, ...], related: list[Related | None], sources: tuple[str, ...]) -> str:
    parts = []
    for name, relation in zip(names, related, strict=True):
        label = name.rpartition("/")[2]
        if relation is None:
            parts.append(f"{label} at random")
        else:
            how = "same name" if relation.same_name else f"nearest, {relation.cosine:.2f}"
            parts.append(f"{label} from {sources[relation.source]} ({how})")
    return f"classifier from prototypes: {'; '.join(parts)}"
