"""The published weights of timm's models: taken where they lie on this machine, fetched never."""

from pathlib import Path

import pytest
import torch

from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.unsupervised.features import open_features
from mdp.io.weights.timm_cache import cached_weights
from tests.peers import library_or_skip

NAME = "test_resnet.r160_in1k"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch's, and one of the hub's client with one model."""
    library_or_skip("timm")
    hub = library_or_skip("huggingface_hub")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repository, name: str(tmp_path / repository / name))
    return tmp_path


def test_published_weights_are_taken_from_the_cache_of_the_hub(caches: Path) -> None:
    timm = library_or_skip("timm")
    path = caches / "timm" / NAME / "pytorch_model.bin"
    path.parent.mkdir(parents=True)
    model = timm.create_model("test_resnet").eval()
    torch.save(model.state_dict(), path)
    found = open_features(f"timm:{NAME}")
    assert found.lines[0].startswith("loaded ")
    images = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.default_cfg["mean"], model.default_cfg["std"]))
    with torch.no_grad():
        expected = model.forward_features((images - mean) / std)
    assert torch.allclose(found.maps(images), expected, atol=1e-4)


def test_weights_that_are_not_here_are_not_fetched_and_the_line_that_fetches_them_is_said(caches: Path) -> None:
    with pytest.raises(CheckpointError, match=r"mdp fetches nothing; `python -c .*'test_resnet', pretrained=True"):
        cached_weights("timm:test_resnet")
    with pytest.raises(RecipeError, match="timm has no weights for it; give a FILE"):
        cached_weights("timm:vit_base_patch16_18x2_224")
    with pytest.raises(RecipeError, match="has no model 'resnet5'; near it"):
        cached_weights("timm:resnet5")
