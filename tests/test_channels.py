"""Photos of any channels and of more than 8 bits: how they are read, agreed on, changed, judged and trained on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mdp.core.labels import LabelUnion
from mdp.core.networks.first_convolution import adapted
from mdp.core.networks.segmentor import NetworkSettings, build_segmentor
from mdp.core.networks.transfer import match
from mdp.core.photometry import (
    DistortionSettings,
    PhotometrySettings,
    Statistics,
    apply_distortion,
    apply_photometry,
    draw_distortion,
    draw_photometry,
    grey,
    normalise,
    stack_draws,
)
from mdp.io.check.report import judge, lines_of_report
from mdp.io.check.scan import check_samples
from mdp.io.data.channels import refuse_other_channels, with_channels
from mdp.io.data.pool import Pool
from mdp.io.data.views import PretrainItems, finished_views, stack_views, usual_views
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Dataset, open_split
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.images import as_picture
from mdp.io.files.photos import read_claims, read_photo
from mdp.io.recipe.layers import Recipe, resolve
from mdp.io.recipe.settings import PretrainSettings
from mdp.io.training.job import run_finetuning
from mdp.photo_rule import PhotoRule, rule_of
from tests.laws import pure_call
from tests.peers import library_or_skip
from tests.small_runs import request
from tests.tensors import rng_of
from tests.tiffs import tiff
from tests.trees import camvid_tree

FIVE = PhotoRule(range=(0, 10000), bands=(3, 2, 1, 4, 5), mean=(1, 2, 3, 4, 5), std=(1, 1, 1, 1, 1))
LAYOUTS: tuple[dict[str, Any], ...] = (
    {}, {"planes": True}, {"planes": True, "rows": 3, "order": ">"}, {"tile": 16, "deflate": True, "predictor": 2},
    {"planes": True, "tile": 16, "big": True},
)  # fmt: skip


def values_of(bands: int, seed: int = 0, most: int = 12000) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, most, (21, 34, bands)).astype(np.uint16)


def unit(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    return (values.astype(np.float64).clip(low, high) - low) / (high - low)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_five_bands_are_channels_in_the_order_asked_for_however_they_are_stored(
    tmp_path: Path, layout: Mapping[str, Any], kind: str
) -> None:
    if kind == "f4" and layout.get("predictor") == 2:
        layout = {**layout, "predictor": 3}
    values = values_of(5).astype(kind)
    path = str(tiff(tmp_path / "a.tif", values, **layout))
    image = read_photo(path, FIVE)
    assert image.dtype == np.float32
    assert np.allclose(image, unit(values[..., [2, 1, 0, 3, 4]], 0, 10000), atol=1e-7)
    assert read_claims(path) == (21, 34, 1)


def test_pages_of_a_stack_are_bands(tmp_path: Path) -> None:
    values = values_of(4)
    pages = [Image.fromarray(values[..., band]) for band in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    rule = PhotoRule(range=(0, 65535), bands=(4, 1), mean=(1, 1), std=(1, 1))
    assert np.allclose(read_photo(str(tmp_path / "a.tif"), rule), unit(values[..., [3, 0]], 0, 65535), atol=1e-7)
    pages[1].resize((5, 5)).save(tmp_path / "b.tif", save_all=True, append_images=pages[2:])
    with pytest.raises(DatasetError, match=r"b\.tif: 3 pages of different sizes"):
        read_photo(str(tmp_path / "b.tif"), rule)


def test_grey_of_16_bits_is_one_channel_and_transparency_may_be_a_fourth(tmp_path: Path) -> None:
    values = values_of(4)
    Image.fromarray(values[..., 0]).save(tmp_path / "a.png")
    rule = PhotoRule(range=(100, 9000), mean=(4000,), std=(900,))
    assert np.allclose(read_photo(str(tmp_path / "a.png"), rule), unit(values[..., :1], 100, 9000), atol=1e-7)
    small = (values // 64).astype(np.uint8)
    Image.fromarray(small, "RGBA").save(tmp_path / "b.png")
    four = PhotoRule(mean=(1, 2, 3, 4), std=(1, 1, 1, 1))
    assert np.allclose(read_photo(str(tmp_path / "b.png"), four), small / 255, atol=1e-7)


def test_numbers_that_are_none_are_black_and_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    values = np.full((2, 2, 2), 0.5, dtype=np.float32)
    values[0, 0, 0], values[1, 1, 1], values[1, 0, 0] = np.nan, np.inf, -np.inf
    path = str(tiff(tmp_path / "a.tif", values))
    rule = PhotoRule(range=(0, 1), mean=(0.5, 0.5), std=(1, 1))
    assert read_photo(path, rule).tolist() == [[[0, 0.5], [0.5, 0.5]], [[0, 0.5], [0.5, 1]]]
    for other, says in (
        (rule._replace(range=None), r"a photo of 2 bands of floats, values 0\.5\.\.0\.5; say in .* black and white"),
        (rule._replace(mean=(1, 1, 1), std=(1, 1, 1)), r"2 bands, where image\.mean has 3"),
        (rule._replace(bands=(1, 7)), r"2 bands, where image\.bands names \[1, 7\]"),
    ):
        with pytest.raises(DatasetError, match=says) as caught:
            read_photo(path, other)
        assert "\n" not in str(caught.value)
    jpeg = str(tiff(tmp_path / "b.tif", values_of(5), tags={259: (7,)}))
    with pytest.raises(DatasetError, match=r"b\.tif: 5 bands of 16 bits with JPEG compression are not read"):
        read_photo(jpeg, FIVE)
    eight = str(tiff(tmp_path / "c.tif", values_of(5).astype(np.uint8)))
    with pytest.raises(DatasetError, match=r"a photo of 8 bits, where image\.range says 0\.\.10000"):
        read_photo(eight, FIVE)


def test_a_rule_comes_back_from_json() -> None:
    for rule in (FIVE, PhotoRule(), PhotoRule(exif="both", mean=(0.0,), std=(2.0,))):
        assert rule_of(json.loads(json.dumps(rule.as_json()))) == rule


def test_a_picture_shows_the_first_three_channels_stretched_or_one_as_grey() -> None:
    image = np.linspace(0, 0.01, 5 * 40 * 40, dtype=np.float32).reshape(40, 40, 5)
    shown = as_picture(image)
    assert shown.shape == (40, 40, 3)
    assert (shown.min(), shown.max()) == (0, 255)
    single = as_picture(image[..., :1])
    assert (single[..., 0] == single[..., 2]).all()


# The network


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6, 13])
def test_the_first_convolution_is_adapted_as_timm_adapts_it(channels: int) -> None:
    library_or_skip("timm")
    from timm.models._manipulate import adapt_input_conv  # noqa: PLC0415

    weight = torch.randn(8, 3, 3, 3, generator=rng_of(channels))
    ours = pure_call(adapted, weight, channels)
    assert torch.allclose(ours, adapt_input_conv(channels, weight), atol=1e-6)
    assert ours.shape == (8, channels, 3, 3)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet18_v1c"])
def test_weights_for_rgb_fit_a_network_for_five_channels(backbone: str) -> None:
    settings = {"backbone": backbone, "width": 8, "head": "fcn", "channels": 8}
    rgb = build_segmentor(NetworkSettings(**settings), 3, rng_of(0)).state_dict()  # type: ignore[arg-type]
    five = NetworkSettings(**settings, image_channels=5, image_mean=(0.1,) * 5, image_std=(0.2,) * 5)  # type: ignore[arg-type]
    network = build_segmentor(five, 3, rng_of(1))
    found = match(rgb, network.state_dict(), ["backbone"])
    (first,) = found.adapted
    assert torch.equal(found.tensors[first], adapted(rgb[first], 5))
    assert not found.wrong_shape
    assert network(torch.rand(2, 5, 32, 32)).shape[:2] == (2, 3)
    with pytest.raises(ValueError, match="image_mean: expected 5 numbers"):
        NetworkSettings(image_channels=5)


@given(st.integers(0, 9), st.sampled_from([1, 2, 5]))
def test_hue_saturation_and_grey_leave_other_channels_alone(seed: int, channels: int) -> None:
    images = torch.rand(2, channels, 8, 8, generator=rng_of(seed))
    colors = PhotometrySettings(jitter=1, brightness=0, contrast=0, saturation=1, hue=0.5, grey=1, blur=0)
    draws = stack_draws([draw_photometry(rng_of(seed), colors)] * 2)
    assert torch.allclose(pure_call(apply_photometry, images, draws), images, atol=1e-6)
    distortion = DistortionSettings(probability=1, brightness=0, contrast=(1, 1), saturation=(0, 0), hue=90)
    draw = stack_draws([draw_distortion(rng_of(seed), distortion)] * 2)
    assert torch.allclose(pure_call(apply_distortion, images, draw), images, atol=1e-6)
    assert torch.allclose(grey(images), images.mean(1, keepdim=True))


def test_images_are_normalised_by_the_statistics_of_their_channels() -> None:
    statistics = Statistics((0.5, 0.1), (0.5, 0.2))
    assert torch.allclose(
        normalise(torch.tensor([1.0, 0.5]).view(1, 2, 1, 1), statistics).flatten(), torch.tensor([1.0, 2.0])
    )


# The data


def site(folder: Path, bands: int = 5, image: str | None = None, name: str = "site") -> str:
    """Photos of bands, of which the last tells two classes apart."""
    rng = np.random.default_rng(bands)
    for index in range(4):
        classes = np.repeat(np.arange(40) >= 10 + 5 * index, 40).reshape(40, 40)
        values = rng.integers(800, 1200, (40, 40, bands))
        values[..., -1] += 6000 * classes
        tiff(folder / "images" / f"{index}.tif", values.astype(np.uint16), planes=bool(index % 2))
        (folder / "labels").mkdir(exist_ok=True)
        Image.fromarray(classes.astype(np.uint8)).save(folder / "labels" / f"{index}.png")
    path = folder / f"{name}.yaml"
    mean, std = [1000] * (bands - 1) + [4000], [115] * (bands - 1) + [3000]
    text = image or f"{{bands: {list(range(1, bands + 1))}, range: [0, 6500], mean: {mean}, std: {std}}}"
    path.write_text(
        f"name: {name}\nsplits: {{train: {{images: images, labels: labels}}, val: 25%}}\n"
        f"classes: [low, high]\nimage: {text}\n"
    )
    return str(path)


def report_of(dataset: Dataset) -> Any:
    samples, _ = open_split(dataset, Path(), "train")
    return judge(dataset, samples, check_samples(dataset, samples, 0), "train", True)


def test_a_check_counts_what_is_clipped_and_measures_mean_and_deviation(tmp_path: Path) -> None:
    dataset = load(site(tmp_path, image="{bands: [1, 2, 3, 4, 5], range: [0, 7100]}"))
    samples, _ = open_split(dataset, Path(), "train")
    photos = np.concatenate([dataset.read(sample)[0].reshape(-1, 5) for sample in samples])
    report = report_of(dataset)
    assert report.values["mean"] == pytest.approx((photos.mean(0) * 7100).tolist(), rel=1e-3)
    assert report.values["std"] == pytest.approx((photos.std(0) * 7100).tolist(), rel=1e-3)
    outside = sum(int((np.asarray(Image.open(sample.labels)) == 1).sum()) for sample in samples)
    assert 0 < report.values["outside"] < outside / 2  # the upper quarter of the high ones
    assert [problem.kind for problem in report.problems if problem.error] == ["statistics"]
    (line,) = report.yaml
    assert line.startswith("image: {range: [0, 7100], bands: [1, 2, 3, 4, 5], mean: [")
    measured = load(site(tmp_path, image=line.removeprefix("image: ")))
    assert [problem.kind for problem in report_of(measured).problems] == ["clipped"]
    assert any("range 0..7100, clipped: " in text for text in lines_of_report(report))


def test_a_declared_mean_of_other_data_and_many_clipped_values_are_warned_of(tmp_path: Path) -> None:
    mean, std = [1000, 1000, 4000, 1000, 3000], [115, 115, 115, 115, 2000]
    rule = f"{{bands: [1, 2, 3, 4, 5], range: [0, 5000], mean: {mean}, std: {std}}}"
    kinds = {problem.kind: problem for problem in report_of(load(site(tmp_path, image=rule))).problems}
    assert set(kinds) == {"clipped", "statistics"}
    assert not any(problem.error for problem in kinds.values())
    assert "of channels 3 are far" in kinds["statistics"].text


def test_datasets_agree_on_channels_or_are_refused_and_share_a_mean_and_a_deviation(tmp_path: Path) -> None:
    recipe = resolve({})
    five, four = (load(site(tmp_path / str(bands), bands, name=f"set{bands}")) for bands in (5, 4))
    with pytest.raises(RecipeError, match="set5 has 5, set4 has 4, voc has 3; a network takes one number"):
        with_channels(recipe, [five, four, load("voc")])
    wide = "{bands: [1, 2, 3, 4], range: [0, 10000], mean: [4000, 0, 1000, 1000], std: [1000, 100, 2000, 10]}"
    other = load(site(tmp_path / "other", 4, wide, "other"))
    together, (line,) = with_channels(recipe, [four, other])
    assert together.model.image_channels == 4
    parts = [Statistics(*(part.photos.statistics() or ((), ()))) for part in (four, other)]
    values = np.concatenate([np.array(s.mean) + np.array(s.std) * np.array([[-1], [1]]) for s in parts])
    assert together.model.image_mean == pytest.approx(values.mean(0))
    assert together.model.image_std == pytest.approx(values.std(0))
    assert "photos of 4 channels (bands 1, 2, 3, 4)" in line
    assert "hue, saturation and grey are left out" in line
    again, said = with_channels(together, [load("voc")])
    assert again.model == recipe.model  # RGB again
    assert said == [
        "note: model.image_channels: 4 is what the recipe or the run that this starts from says, and the photos have "
        "3, which the network takes"
    ]
    assert "image_channels: 4" in with_channels(together, [five])[1][0]
    bare = load(site(tmp_path / "bare", 5, "{bands: [1, 2, 3, 4, 5], range: [0, 1]}", "bare"))
    with pytest.raises(RecipeError, match=r"5 channels need `mean` and `std`.*`mdp check .*bare\.yaml` measures"):
        with_channels(recipe, [bare])
    with pytest.raises(RecipeError, match="voc: photos of 3 channels, and the network takes 4"):
        refuse_other_channels(together.model.image_channels, load("voc"))


def test_photos_of_bytes_beside_floats_are_the_same_views_on_a_gpu_as_on_a_cpu(tmp_path: Path) -> None:
    three = "{bands: [1, 2, 3], range: [0, 10000], mean: [1000, 1000, 4000], std: [900, 900, 900]}"
    camvid_tree(tmp_path)
    sets = [load(site(tmp_path / "three", 3, three)), load("camvid")]
    samples = [open_split(dataset, tmp_path, "train")[0][0] for dataset in sets]
    pool = Pool(samples, {dataset.name: dataset for dataset in sets}, LabelUnion([each.labels for each in sets]))
    plan = usual_views(PretrainSettings(crop=16))
    on_cpu, for_gpu = (PretrainItems(pool, plan, 0, finish=finish) for finish in (True, False))
    finished, sent = (stack_views([items[(0, 0)], items[(0, 1)]]) for items in (on_cpu, for_gpu))  # type: ignore[list-item]
    (there,), (here,) = finished_views(sent, torch.device("cpu"), pool.statistics).images, finished.images
    torch.testing.assert_close(there, here)
    assert float(here.abs().max()) < 10


def test_a_recipe_keeps_its_statistics_for_plain_photos() -> None:
    recipe: Recipe = resolve({"model": {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}})
    assert with_channels(recipe, [load("voc")]) == (recipe, [])


def test_fine_tuning_from_rgb_weights_says_that_it_adapts_them_and_the_record_has_the_rule(tmp_path: Path) -> None:
    rgb = run_finetuning(request(init="scratch", out=tmp_path / "rgb"))
    data = site(tmp_path / "data")
    out = run_finetuning(
        request(("finetune.target", data), ("finetune.load", ["backbone"]), init=str(rgb), out=tmp_path / "five")
    )
    log = (out / "log.txt").read_text()
    assert "backbone.conv1.weight is adapted from red, green and blue to 5 channels" in log
    assert "photos of 5 channels (bands 1, 2, 3, 4, 5), in [0, 1] normalised by mean 0.1538" in log
    from mdp.io.run.opened import open_run  # noqa: PLC0415

    record = open_run(out / "checkpoints" / "last.safetensors").record
    assert record.photos == {"site": load(data).photos}
    assert record.recipe["model"]["image_channels"] == 5
    assert (out / "samples" / "first.png").is_file()
