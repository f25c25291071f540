"""The weights of a model of timm's where they are on this machine already: mdp fetches nothing itself."""

import importlib
from contextlib import suppress
from pathlib import Path

import torch

from mdp.core.networks import timm_backbone
from mdp.core.networks.timm_backbone import PREFIX
from mdp.io.errors import CheckpointError, RecipeError

_NAMES = ("model.safetensors", "pytorch_model.bin")  # by which timm's repositories have them, in its own order


def cached_weights(backbone: str) -> Path:
    """The file with the published weights of `timm:NAME`, where timm or the hub's client has put it.

    Raises CheckpointError, with the line that fetches it, where there is none, and RecipeError for a name that timm
    does not know or has no weights for.
    """
    name = backbone.removeprefix(PREFIX)
    try:
        published = timm_backbone.pretrained(name)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if published is None:
        raise RecipeError(f"{backbone}: timm has no weights for it; give a FILE of weights with --backbone {backbone}")
    repository, address = published
    for path in (*_on_the_hub(repository), Path(torch.hub.get_dir(), "checkpoints", address.rpartition("/")[2])):
        if path.is_file():
            return path
    raise CheckpointError(
        f"{backbone}: its weights are not on this machine, and mdp fetches nothing; "
        f"`python -c \"import timm; timm.create_model('{name}', pretrained=True)\"` does, or give a FILE of weights "
        f"with --backbone {backbone}"
    )


def _on_the_hub(repository: str) -> list[Path]:
    """Where the hub's client has the files of a repository."""
    found = []
    with suppress(ImportError):  # it comes with timm
        look = importlib.import_module("huggingface_hub").try_to_load_from_cache
        found = [look(repository, name) for name in _NAMES if repository]
    return [Path(path) for path in found if isinstance(path, str)]
