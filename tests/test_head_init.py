"""A classifier from prototypes: which class stands for which, the linear fit, and `finetune --head-init prototypes`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.classifier_init import Related, fit_classifier, plain_name, related_classes
from mdp.core.prototype_bank import Prototypes
from mdp.io.data.selection import plan_finetuning
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import resolve
from mdp.io.run.opened import new_segmentor
from mdp.io.training.classifier_init import start_classifier_
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.laws import pure_call
from tests.small_runs import TINY, PlainRuns, request, tensors_of
from tests.tensors import rng_of, seeds

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

CPU = torch.device("cpu")


def known(*rows: list[float]) -> Prototypes:
    return Prototypes(torch.tensor(rows), torch.tensor(rows).any(1))


@given(st.text(), st.text(alphabet=" -_/.,"))
def test_names_are_compared_by_their_letters_and_digits(name: str, around: str) -> None:
    assert plain_name("set/" + around.replace("/", "") + name.replace("/", "")) == plain_name(name.replace("/", ""))


def test_a_class_of_the_same_name_is_taken_before_a_nearer_one() -> None:
    sources = known([1.0, 0.0], [0.0, 1.0], [0.6, 0.8])
    found = pure_call(related_classes, ["t/Tree"], known([1.0, 0.0]), ["a/sky", "a/tree", "b/tree"], sources)
    assert found == [Related(2, True, pytest.approx(0.6))]


def test_without_the_name_the_nearest_is_taken_and_without_pixels_none() -> None:
    sources = known([0.0, 1.0], [0.8, 0.6], [0.0, 0.0])
    names = ["t/road", "t/pole", "t/third"]
    found = related_classes(names, known([1.0, 0.0], [0.0, 0.0], [0.0, 1.0]), ["a/sky", "a/street", "a/third"], sources)
    assert found[0] == Related(1, False, pytest.approx(0.8))
    assert found[1] is None
    assert found[2] == Related(0, False, 1.0)  # the class of its name has no prototype


def test_nothing_known_gives_nothing() -> None:
    assert related_classes(["t/a"], known([1.0, 0.0]), ["s/a"], known([0.0, 0.0])) == [None]


@given(seeds, st.integers(1, 4), st.integers(1, 5))
def test_logits_that_are_linear_in_the_features_are_met_up_to_what_no_softmax_sees(
    seed: int, width: int, classes: int
) -> None:
    rng = rng_of(seed)
    features = torch.randn(60, width, generator=rng)
    logits = features @ torch.randn(width, classes, generator=rng) + torch.randn(classes, generator=rng)
    shifted = logits + torch.randn(60, 1, generator=rng)  # the same for every class of a pixel
    weight, bias = pure_call(fit_classifier, features, shifted, 1e-9)
    assert torch.allclose((features @ weight.T + bias).softmax(1), logits.softmax(1), atol=1e-3)


def test_the_fit_is_ridge_regression() -> None:
    rng = rng_of(0)
    features, logits = torch.randn(50, 3, generator=rng) + 1, torch.randn(50, 2, generator=rng)
    weight, bias = fit_classifier(features, logits, ridge=0.5)
    x = features.numpy().astype(float) - features.numpy().astype(float).mean(0)
    y = logits.numpy() - logits.numpy().mean(1, keepdims=True)
    damping = 0.5 * np.trace(x.T @ x / 50) / 3 * 50
    stacked = np.vstack([x, np.sqrt(damping) * np.eye(3)])
    expected = np.linalg.lstsq(stacked, np.vstack([y - y.mean(0), np.zeros((3, 2))]), rcond=None)[0].T
    assert np.allclose(weight.numpy(), expected, atol=1e-5)
    assert np.allclose(bias.numpy(), y.mean(0) - expected @ features.numpy().mean(0), atol=1e-5)


def test_pixels_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows of features and 3 of logits"):
        fit_classifier(torch.ones(2, 2), torch.ones(3, 2))


def test_the_classifier_starts_where_the_prototypes_are() -> None:
    """Untrained, on the target's own crops, it names labels better than chance, which a random one does not."""
    run = run_pretraining(request(("pretrain.steps", 60), ("pretrain.lr", 0.2), ("model.width", 8), out=Path("pre")))
    layer = {**TINY, "model": {**TINY["model"], "width": 8}, "finetune": {**TINY["finetune"], "batch_size": 16}}
    recipe = resolve(layer)
    plan = plan_finetuning(recipe)
    network = new_segmentor(recipe, plan.pool.union.size)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    said = start_classifier_(network, run / "checkpoints" / "last.safetensors", recipe, plan.pool, CPU)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
    assert said.startswith("classifier from prototypes: background from ")
    assert network.decode_head.conv_seg.weight.std() > 0.02  # random ones have 0.01


def test_fine_tuning_takes_it_and_says_so(plain_runs: PlainRuns) -> None:
    plain_runs("pretrain", Path("pre"))
    asked = (("finetune.steps", 1), ("finetune.validate_steps", 0))
    plain = run_finetuning(request(*asked, out=Path("plain"), init="pre"))
    started = run_finetuning(request(*asked, ("finetune.head_init", "prototypes"), out=Path("started"), init="pre"))
    assert "classifier from prototypes" in (started / "log.txt").read_text()
    name = "network.decode_head.conv_seg.weight"
    assert not torch.equal(tensors_of(plain)[name], tensors_of(started)[name])


@pytest.mark.parametrize("method", ["supervised", "pixel_pairs"])
def test_runs_without_prototypes_are_refused(method: str) -> None:
    layer = {key: value for key, value in TINY.items() if key != "method"}
    asked = {**layer, "method": {"name": method}, "model": {**TINY["model"], "channels": 8}}
    if method == "pixel_pairs":
        asked["method"] |= {"embedding": 8, "hidden": 8}
    run_pretraining(request(out=Path("pre"), layers=(asked,)))
    with pytest.raises(RecipeError, match=f"{method} has none"):
        run_finetuning(request(("finetune.head_init", "prototypes"), out=Path("ft"), init="pre"))
    assert not Path("ft").exists()


def test_weights_that_are_no_pretraining_run_are_refused() -> None:
    with pytest.raises(RecipeError, match="scratch has no prototypes"):
        run_finetuning(request(("finetune.head_init", "prototypes"), out=Path("ft"), init="scratch"))
    run_finetuning(request(("finetune.steps", 1), out=Path("tuned"), init="scratch"))
    with pytest.raises(RecipeError, match="this is a finetune run"):
        run_finetuning(request(("finetune.head_init", "prototypes"), out=Path("ft"), init="tuned"))
    torch.save(new_segmentor(resolve(TINY), 8).state_dict(), "bare.pth")
    with pytest.raises(RecipeError, match="this is another file"):
        run_finetuning(request(("finetune.head_init", "prototypes"), out=Path("ft"), init="bare.pth"))
