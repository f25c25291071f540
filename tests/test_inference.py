"""Inference in parts and within a budget, against the plain computation that has all class scores at once."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mdp.core.geometry import Box, View, cut_image, fitted_size
from mdp.core.networks import NetworkSettings, Segmentor, build_segmentor, upsample
from mdp.core.photometry import normalise
from mdp.core.windows import Windows, assemble, class_parts, first_maximum, log_partition, mean_probabilities, starts
from mdp.io.errors import ResourceError
from mdp.io.inference.activation_memory import activation_bytes
from mdp.io.inference.memory_budget import Budget
from mdp.io.inference.predict import predict, probabilities, turns
from mdp.io.recipe.settings import EvalSettings
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> Segmentor:
    model = NetworkSettings(backbone="resnet18", width=8, output_stride=8, channels=8, dilations=(1, 2))
    segmentor = build_segmentor(model, 35, rng_of(0)).eval()
    nn.init.normal_(segmentor.decode_head.conv_seg.weight, std=1.0, generator=rng_of(1))  # or one class takes all
    return segmentor


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=rng_of(seed))


def plain(network: nn.Module, image: Tensor, asked: EvalSettings, ratio: float = 1.0, flip: bool = False) -> Tensor:
    """Logits (C, H, W), all classes at once and window by window."""
    height, width = image.shape[1:]
    long, short = asked.scale or (max(height, width), min(height, width))
    size = fitted_size(height, width, (int(long * ratio), int(short * ratio)))
    with torch.no_grad():
        resized = cut_image(image, View(Box(0, 0, height, width), flip), size)
        inputs = normalise(resized[None].float() / 255)
        logits = upsample(network(inputs), size) if asked.mode == "whole" else windowed(network, inputs, asked)
        if size != (height, width):
            logits = upsample(logits, (height, width))
        return logits[0].flip(-1) if flip else logits[0]


def windowed(network: nn.Module, inputs: Tensor, asked: EvalSettings) -> Tensor:
    assert asked.window
    assert asked.stride
    window = (min(asked.window[0], inputs.shape[2]), min(asked.window[1], inputs.shape[3]))
    corners = [(y, x) for y in starts(inputs.shape[2], asked.window[0], asked.stride[0])
               for x in starts(inputs.shape[3], asked.window[1], asked.stride[1])]  # fmt: skip
    pieces = torch.cat([inputs[:, :, y : y + window[0], x : x + window[1]] for y, x in corners])
    total, hits = torch.zeros(1, 35, *inputs.shape[2:]), torch.zeros(1, 1, *inputs.shape[2:])
    for (y, x), logits in zip(corners, upsample(network(pieces), window), strict=True):
        total[0, :, y : y + window[0], x : x + window[1]] += logits
        hits[:, :, y : y + window[0], x : x + window[1]] += 1
    return total / hits


# The parts


@given(st.integers(1, 200), st.integers(1, 50))
def test_class_parts_are_all_classes_once_and_begin_where_vectors_do(classes: int, most: int) -> None:
    parts = class_parts(classes, most)
    assert [i for part in parts for i in range(classes)[part]] == list(range(classes))
    lengths = [len(range(classes)[part]) for part in parts]
    assert all(part.start % 16 == 0 for part in parts)
    assert max(lengths) <= max(most, 19)
    assert min(lengths) >= min(4, classes)
    assert (len(parts) == 1) == (classes <= max(most, 19))


@given(seeds, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_first_maximum_of_parts_is_that_of_the_whole(seed: int, lengths: list[int]) -> None:
    scores = torch.randint(-2, 3, (sum(lengths), 5, 6), generator=rng_of(seed)).float()  # many ties
    scores[torch.rand(scores.shape, generator=rng_of(seed + 1)) < 0.05] = torch.nan
    scores[torch.rand(scores.shape, generator=rng_of(seed + 2)) < 0.05] = torch.inf
    assert torch.equal(first_maximum(iter(scores.split(lengths))), scores.argmax(0))


@given(seeds, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_softmax_in_parts_is_softmax(seed: int, lengths: list[int]) -> None:
    first, second = (30 * torch.randn(sum(lengths), 3, 4, generator=rng_of(seed + i)) for i in range(2))
    norms = [pure_call(log_partition, list(scores.split(lengths))) for scores in (first, second)]
    parts = [
        pure_call(mean_probabilities, list(zip(pair, norms, strict=True)))
        for pair in zip(first.split(lengths), second.split(lengths), strict=True)
    ]
    expected = (first.softmax(0) + second.softmax(0)) / 2
    assert torch.allclose(torch.cat(parts), expected, atol=2e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(37, 61), (150, 90)])  # torch takes another kernel up to a height and width of 128
def test_a_few_classes_have_the_bits_of_all_at_once(size: tuple[int, int], layout: torch.memory_format) -> None:
    logits = torch.randn(4, 55, 6, 9, generator=rng_of(0)).contiguous(memory_format=layout)
    corners = ((0, 0), (0, 13), (13, 0), (13, 13))
    for windows in (
        Windows((logits[:1],), ((0, 0),), (40, 70), (40, 70), flip=False),
        Windows((logits[:3], logits[3:]), corners, (24, 32), (37, 45), flip=True),
    ):
        for classes in (55, 35):
            whole = pure_call(assemble, windows, slice(0, classes), size)
            for most in (4, 20, 40):
                parts = [assemble(windows, part, size) for part in class_parts(classes, most)]
                assert torch.equal(torch.cat(parts), whole)


# The prediction


@settings(max_examples=15)
@given(st.integers(20, 90), st.integers(20, 90), st.sampled_from([None, (60, 40)]), st.booleans())
def test_a_prediction_has_the_bits_of_the_plain_one(height: int, width: int, scale: object, slide: bool) -> None:
    asked = EvalSettings(mode="slide" if slide else "whole", window=(32, 48), stride=(20, 30), scale=scale)  # type: ignore[arg-type]
    model = NetworkSettings(backbone="resnet18", width=8, output_stride=16, channels=8, dilations=(1, 2))
    network = build_segmentor(model, 35, rng_of(0)).eval()
    nn.init.normal_(network.decode_head.conv_seg.weight, std=1.0, generator=rng_of(1))
    image = photo(height, width)
    expected = plain(network, image, asked).argmax(0)
    assert torch.equal(predict(network, image, asked, CPU), expected)
    few = Budget()
    few.classes = lambda views, size: 4  # type: ignore[method-assign]
    assert torch.equal(predict(network, image, asked, CPU, few), expected)


def test_scales_and_mirrored_images_are_averaged_as_softmax_scores(network: Segmentor) -> None:
    image = photo(48, 72)
    for mode in ("whole", "slide"):
        asked = EvalSettings(
            mode=mode, window=(32, 48), stride=(20, 30), scale=(96, 40), scales=(0.5, 1.0, 1.75), flip=True
        )
        views = [plain(network, image, asked, ratio, flip) for ratio in asked.scales for flip in (False, True)]
        expected = torch.stack([view.softmax(0) for view in views]).mean(0)
        found = probabilities(network, image, asked, CPU)
        assert found.shape == (35, 48, 72)
        assert torch.allclose(found, expected, atol=1e-5)
        sure = expected.topk(2, 0).values.diff(dim=0)[0].abs() > 1e-4
        assert sure.float().mean() > 0.9
        assert torch.equal(predict(network, image, asked, CPU)[sure], expected.argmax(0)[sure])
        assert torch.equal(predict(network, image, asked, CPU), found.argmax(0))


def test_probabilities_of_one_look_are_the_softmax_of_its_logits(network: Segmentor) -> None:
    image, asked = photo(40, 56), EvalSettings()
    found = probabilities(network, image, asked, CPU)
    assert torch.allclose(found, plain(network, image, asked).softmax(0), atol=1e-6)
    assert torch.allclose(found.sum(0), torch.ones(40, 56), atol=1e-5)


def test_a_mirrored_image_has_the_mirrored_prediction_when_both_are_averaged(network: Segmentor) -> None:
    image, asked = photo(40, 64), EvalSettings(flip=True)
    found, mirrored = (probabilities(network, picture, asked, CPU) for picture in (image, image.flip(-1)))
    assert torch.allclose(found, mirrored.flip(-1), atol=1e-5)


def test_ratios_multiply_the_scale_as_in_mmsegmentation() -> None:
    found = turns(375, 500, EvalSettings(scale=(2048, 512), scales=(0.75, 1.0), flip=True))
    # 0.75: (1536, 384) -> 384 / 375 of the image
    assert [turn.size for turn in found] == [(384, 512), (384, 512), (512, 683), (512, 683)]
    assert [turn.flip for turn in found] == [False, True, False, True]
    assert turns(375, 500, EvalSettings(scales=(0.5, 1.0))) == [((187, 249), False), ((375, 500), False)]


# The budget


def test_the_windows_of_a_budget_are_as_many_as_fit(network: Segmentor) -> None:
    cost = Budget(2**40).windows(network, (64, 64), 0, torch.device("cuda"))
    one = activation_bytes(network, (64, 64))
    base = 2**27
    for count in (1, 3, 10):
        limit = base + int(1.16 * one * count) + 1000
        assert Budget(limit).windows(network, (64, 64), 500, torch.device("cuda")) == count
        with pytest.raises(ResourceError, match=r"64 x 64 pixels in one pass need about"):
            Budget(limit).windows(network, (64, 64), limit - base, torch.device("cuda"))
    assert cost > 1000
    assert Budget(2**40).windows(network, (512, 1024), 0, CPU) == 1


def test_a_prediction_within_a_budget_is_the_same(network: Segmentor) -> None:
    image = photo(60, 90)
    for asked in (EvalSettings(), EvalSettings(mode="slide", window=(32, 32), stride=(20, 20))):
        tight = EvalSettings(mode=asked.mode, window=asked.window, stride=asked.stride, max_memory="140MB")
        assert torch.equal(predict(network, image, tight, CPU), predict(network, image, asked, CPU))


def test_a_budget_that_allows_no_prediction_is_refused_in_one_line(network: Segmentor) -> None:
    with pytest.raises(ResourceError, match=r"eval\.max_memory allows 100 MB .* 90 x 60 pixels in one pass need about"):
        predict(network, photo(60, 90), EvalSettings(max_memory="100MB"), CPU)
    views = [Windows((torch.zeros(1, 171, 128, 256),), ((0, 0),), (1024, 2048), (1024, 2048), flip=False)]
    with pytest.raises(ResourceError, match="the scores of 2048 x 1024 pixels need about"):
        Budget(300_000_000).classes(views, (1024, 2048))
    assert 19 <= Budget(500_000_000).classes(views, (1024, 2048)) < 171


def failing(network: nn.Module, most: int, error: Callable[[], Exception]) -> nn.Module:
    """The network on a device with room for so many windows."""

    class Small(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > most:
                raise error()
            logits: Tensor = network(images)
            return logits

    return Small()


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory."),
        lambda: RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        MemoryError,
    ],
)
def test_windows_are_halved_when_memory_runs_out_and_that_is_said_once(
    network: Segmentor, error: Callable[[], Exception]
) -> None:
    asked = EvalSettings(mode="slide", window=(32, 32), stride=(16, 16))
    image, said = photo(80, 80), list[str]()
    budget = Budget(say=said.append)
    expected = predict(network, image, asked, CPU)
    for _ in range(2):
        assert torch.equal(predict(failing(network, 3, error), image, asked, CPU, budget), expected)
    assert said == ["out of memory with 16 windows together; going on with fewer"]
    with pytest.raises(ResourceError, match=r"out of memory with 32 x 32 pixels in one pass; give --mode slide"):
        predict(failing(network, 0, error), image, asked, CPU)


def test_errors_that_are_not_about_memory_pass(network: Segmentor) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict(
            failing(network, 0, lambda: RuntimeError("shapes cannot be multiplied")), photo(32, 32), EvalSettings(), CPU
        )


def test_activations_grow_with_the_image_and_with_the_batch(network: Segmentor) -> None:
    one = activation_bytes(network, (256, 256))  # on a smaller one copies of the last stage's weights count for more
    assert activation_bytes(network, (512, 256)) == pytest.approx(2 * one, rel=0.02)
    assert activation_bytes(network, (256, 256), images=3) == pytest.approx(3 * one, rel=0.02)
    # the largest tensor is the first stage's, 8 x 128 x 128 numbers: the stem's in and out, each twice
    assert one >= 4 * (3 * 256 * 256 + 8 * 128 * 128)


def test_what_a_layer_has_used_up_is_counted_no_longer() -> None:
    # what goes in and what comes out, 3 x 10 x 10 numbers each, and copies of both and of 3 x 3 weights
    for layers in (3, 30):
        assert activation_bytes(nn.Sequential(*[nn.Conv2d(3, 3, 1)] * layers), (10, 10)) == 4 * (4 * 300 + 9)


def test_inference_stays_within_its_budget() -> None:
    # 171 classes at 512 x 256 take 90 MB for each copy of their scores
    own = [sys.executable, "-m", "tests.stress.eval_memory", "--small", "--limit", "220MB", "--one", "whole with flip"]
    done = subprocess.run(own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MB beyond network and image" in done.stdout
