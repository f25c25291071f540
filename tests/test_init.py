"""`--init`: weights are found at whatever place of a file they lie, and nothing that does not fit goes unsaid."""

import argparse
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.networks import NetworkSettings, Segmentor, build_segmentor
from mdp.core.networks.identify import backbone_for, recognise
from mdp.core.networks.parameter_names import DEEP_STEM, TORCHVISION_DEEPLAB, to_foreign
from mdp.core.networks.resnet import ResNet
from mdp.core.networks.transfer import locations, match
from mdp.io.errors import CheckpointError
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.io.weights.init import judge, take
from mdp.io.weights.reading import WeightsFile, read_file
from tests.laws import pure_call
from tests.small_runs import request, tensors_of
from tests.tensors import rng_of

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

NARROW = NetworkSettings(backbone="resnet18", width=8, channels=8, dilations=(1, 2))
PARTS = ("backbone", "decode_head")
Weights = dict[str, Tensor]


def new_network() -> Segmentor:
    return build_segmentor(NARROW, 4, rng_of(0))


def filled(number: float) -> Weights:
    """A bare ResNet's weights, every tensor with numbers of its own that tell which network it is from."""
    own = ResNet("resnet18", 8).state_dict()
    return {
        name: torch.full_like(tensor, number + place) if tensor.is_floating_point() else torch.tensor(int(number))
        for place, (name, tensor) in enumerate(own.items())
    }


def under(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def resnet_names(blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names and shapes of a published bottleneck ResNet, as torchvision has them, with its classifier."""

    def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.{part}", (channels,)) for part in ("weight", "bias", "running_mean", "running_var"))
        yield f"{name}.num_batches_tracked", ()

    yield "conv1.weight", (width, 3, 7, 7)
    yield from norm("bn1", width)
    inputs = width
    for stage, count in enumerate(blocks):
        planes = width * 2**stage
        for block in range(count):
            start = f"layer{stage + 1}.{block}"
            sizes = ((planes, inputs, 1), (planes, planes, 3), (4 * planes, planes, 1))
            for number, (outputs, channels, kernel) in enumerate(sizes, 1):
                yield f"{start}.conv{number}.weight", (outputs, channels, kernel, kernel)
                yield from norm(f"{start}.bn{number}", outputs)
            if block == 0:
                yield f"{start}.downsample.0.weight", (4 * planes, inputs, 1, 1)
                yield from norm(f"{start}.downsample.1", 4 * planes)
            inputs = 4 * planes
    yield "fc.weight", (1000, inputs)
    yield "fc.bias", (1000,)


ODD_ONE = torch.zeros(3)
OURS, OTHER = filled(1000), filled(5000)
FC = {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
MLP = {"fc.0.weight": torch.zeros(2, 2), "fc.2.bias": torch.zeros(2)}
MOMENTS = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}, 1: {"step": 3}}, "param_groups": [{"lr": 0.1}]}
# name -> what is in the file, how the line says where the weights were, what is not used; OURS is to be taken
FAMILIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "torchvision": ({**OURS, **FC}, "", "fc"),
    "timm": ({**OURS, "head.fc.weight": torch.zeros(10, 64)}, "", "head.fc"),
    "torchvision's DeepLab": (
        {**under("backbone.", OURS), "classifier.4.weight": torch.zeros(21, 8, 1, 1), "aux_classifier.4.bias": ODD_ONE},
        "", "aux_classifier, classifier",
    ),
    "MoCo": (
        {"epoch": 200, "arch": "resnet50", "state_dict": {
            **under("module.encoder_k.", {**OTHER, **MLP}), **under("module.encoder_q.", {**OURS, **MLP}),
            "module.queue": torch.zeros(2, 9), "module.queue_ptr": torch.zeros(1).long(),
        }},
        "dictionary state_dict, names after module.encoder_q.", "fc, queue, queue_ptr, state_dict.module.encoder_k",
    ),
    "MoCo-v3": (
        {"state_dict": {**under("module.momentum_encoder.", OTHER), **under("module.base_encoder.", OURS)}},
        "dictionary state_dict, names after module.base_encoder.", "state_dict.module.momentum_encoder",
    ),
    "DINO": (
        {"student": under("module.backbone.", OTHER), "optimizer": MOMENTS, "epoch": 3,
         "teacher": {**under("backbone.", OURS), "head.mlp.0.bias": ODD_ONE}},
        "dictionary teacher", "head.mlp, optimizer.state, student.module.backbone",
    ),
    "SwAV": (
        under("module.", {**OURS, "projection_head.0.weight": torch.zeros(3), "prototypes.weight": torch.zeros(3)}),
        "names after module.", "projection_head, prototypes",
    ),
    "SimSiam": (
        {"state_dict": under("module.", {**under("encoder.", {**OURS, **MLP}), "predictor.0.weight": torch.zeros(2)})},
        "dictionary state_dict, names after module.encoder.", "fc, predictor",
    ),
    "DenseCL, one backbone under two names": (
        {"state_dict": {**under("encoder_k.0.", OTHER), **under("encoder_q.0.", OURS), **under("backbone.", OURS)},
         "meta": {"CLASSES": ("a", "b")}},
        "dictionary state_dict", "state_dict.encoder_k.0, state_dict.encoder_q.0",
    ),
    "DenseCL, the backbone alone": ({"state_dict": OURS, "author": "OpenSelfSup"}, "dictionary state_dict", ""),
    "PixPro": (
        {"opt": {"arch": "resnet50"}, "epoch": 400, "optimizer": MOMENTS, "model": {
            **under("module.encoder.", OURS), **under("module.encoder_k.", OTHER),
            "module.projector.linear1.weight": torch.zeros(2, 2, 1, 1), "module.projector_k.bn1.bias": ODD_ONE,
            "module.value_transform.weight": torch.zeros(2, 2, 1, 1),
        }},
        "dictionary model, names after module.encoder.",
        "model.module.encoder_k, optimizer.state, projector.linear1, projector_k.bn1, value_transform",
    ),
    "SimCLR, converted from TensorFlow": ({"state_dict": {**OURS, **FC}}, "dictionary state_dict", "fc"),
    "SimCLR of VISSL": (
        {"classy_state_dict": {"base_model": {"model": {
            "trunk": under("_feature_blocks.", OURS), "heads": {"0.clf.0.weight": torch.zeros(2, 2)},
        }}}},
        "dictionary classy_state_dict.base_model.model.trunk, names after _feature_blocks.", "heads",
    ),
    "BYOL": (
        {**under("target_encoder.net.", OTHER), **under("online_encoder.net.", OURS)},
        "names after online_encoder.net.", "target_encoder.net",
    ),
    "SMP": ({**under("encoder.", OURS), "decoder.aspp.0.0.weight": ODD_ONE}, "names after encoder.", "decoder.aspp"),
    "Lightning": (
        {"state_dict": {**under("model.backbone.", OURS), "criterion.weight": torch.zeros(3)}, "epoch": 1,
         "pytorch-lightning_version": "2.4", "optimizer_states": [MOMENTS], "hyper_parameters": {"lr": 0.1}},
        "dictionary state_dict, names after model.backbone.", "criterion",
    ),
    "a compiled network in DistributedDataParallel": (
        {"model": under("module._orig_mod.", OURS)}, "dictionary model, names after module._orig_mod.", "",
    ),
    "averaged weights": ({"state_dict": OTHER, "state_dict_ema": OURS}, "dictionary state_dict_ema", "state_dict"),
    "a dictionary for each module": (
        {"net": {"backbone": OURS, "neck": {"weight": torch.zeros(3)}}}, "dictionary net.backbone", "neck",
    ),
    "an old file without counters": (
        {name: tensor for name, tensor in OURS.items() if "num_batches" not in name}, "", "",
    ),
}  # fmt: skip


def taken(path: Path, content: Any, start: str = "", partial: bool = False) -> tuple[Weights, list[str]]:
    torch.save(content, path)
    return take(path, new_network(), PARTS, start, partial)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_weights_that_training_left(tmp_path: Path, family: str) -> None:
    content, place, unused = FAMILIES[family]
    weights, lines = taken(tmp_path / "x.pth.tar", content)
    there = {name for name in OURS if family != "an old file without counters" or "num_batches" not in name}
    assert set(weights) == {f"backbone.{name}" for name in there}
    assert all(torch.equal(weights[f"backbone.{name}"], OURS[name]) for name in there)
    where = f" ({place})" if place else ""
    used = f"; in the file, not used: {unused}" if unused else ""
    expected = f"loaded {len(there)} of {len(there)} backbone tensors from {tmp_path}/x.pth.tar{where}"
    counters = 120 - len(there)  # no lack, where they are not there
    expected += f"; BatchNorm's {counters} counters, which nothing here reads, are not in it" if counters else ""
    assert lines == [f"{expected}; starts at random: decode_head{used}"]


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.model."])
def test_a_head_of_the_same_kind_comes_with_the_backbone_but_never_its_classifier(tmp_path: Path, prefix: str) -> None:
    theirs = build_segmentor(NARROW, 4, rng_of(1)).state_dict()
    weights, (line,) = taken(tmp_path / "x.pth", {**under(prefix, theirs), "optimizer": MOMENTS})
    assert set(weights) == {name for name in theirs if "conv_seg" not in name}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in weights.items())
    assert "loaded 120 of 120 backbone tensors, 24 of 24 decode_head tensors from" in line
    assert "starts at random: decode_head.conv_seg; in the file, not used: decode_head.conv_seg, optimizer" in line


def test_safetensors_of_others_are_read_by_any_name(tmp_path: Path) -> None:
    entries: dict[str, Any] = {}
    data = b""
    for name, tensor in under("model.", OURS).items():
        part = tensor.numpy().tobytes()
        kind = "F32" if tensor.is_floating_point() else "I64"
        offsets = [len(data), len(data) + len(part)]
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        data += part
    header = json.dumps({**entries, "__metadata__": {"format": "pt"}}).encode()
    for name in ("x.safetensors", "x.bin", "x.pth"):  # names lie, the first bytes do not
        (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header + data)
        weights, (line,) = take(tmp_path / name, new_network(), PARTS)
        assert torch.equal(weights["backbone.layer4.1.conv2.weight"], OURS["layer4.1.conv2.weight"])
        assert "names after model." in line


def test_a_deep_stem_and_a_torchvision_head_come_under_our_names() -> None:
    stem = {f"backbone.stem.{i}.weight": torch.full((2,), float(i)) for i in (0, 1, 3, 4, 6, 7)}
    for own, table, start in (
        ({**stem, "backbone.layer1.0.conv1.weight": torch.ones(3)}, DEEP_STEM, "module."),
        ({"backbone.conv1.weight": ODD_ONE, "decode_head.aspp.project.0.weight": ODD_ONE}, TORCHVISION_DEEPLAB, ""),
    ):  # fmt: skip
        file = {start + str(to_foreign(name, table)): tensor for name, tensor in own.items()}
        found = pure_call(match, file, own, PARTS)
        assert found.tensors == own
        assert found.unexpected == []


@given(st.lists(st.sampled_from(["module", "net", "0", "layer1", "conv1", "backbone", "x y", "é"]), max_size=4))
def test_weights_are_found_under_any_prefix(words: list[str]) -> None:
    prefix = "".join(f"{word}." for word in words)
    found = pure_call(locations, under(prefix, OURS), under("backbone.", OURS))
    assert found[0].backbone == prefix
    assert found[0].fits == len(OURS)


def test_more_matches_win_over_a_better_name() -> None:
    some = dict(list(OURS.items())[:-1])
    found = locations({**under("teacher.", some), **under("zzz.encoder_k.", OURS)}, under("backbone.", OURS))
    assert [location.backbone for location in found[:2]] == ["zzz.encoder_k.", "teacher."]


def test_by_hand_places_count_what_fits_and_what_is_only_named() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    own = {"backbone.a.weight": one, "backbone.b.weight": two, "decode_head.c": one}
    (location,) = locations({"m.a.weight": one, "m.b.weight": one, "m.zzz": one}, own)
    assert (location.prefix, location.backbone, location.fits, location.named, location.rank) == ("m.", "m.", 1, 2, 1)


# Enough, and not


def share_of(tensors: int) -> Weights:
    """All but the last so many tensors, counters left out altogether."""
    kept = [name for name in OURS if "num_batches" not in name]
    return {name: OURS[name] for name in kept[: len(kept) - tensors]}


def test_a_few_missing_tensors_are_named_and_the_rest_is_loaded(tmp_path: Path) -> None:
    content = {
        name: tensor for name, tensor in OURS.items() if name not in ("layer4.1.bn1.weight", "layer4.1.bn1.bias")
    }
    weights, lines = taken(tmp_path / "x.pth", content)
    assert len(weights) == 118
    assert lines[1:] == [
        f"note: {tmp_path}/x.pth: 2 of 120 backbone tensors are not taken from it: backbone.layer4.1.bn1.weight, "
        "backbone.layer4.1.bn1.bias"
    ]


@pytest.mark.parametrize(("gone", "accepted"), [(1, True), (2, True), (3, False), (60, False)])
def test_nine_tenths_of_every_part_are_asked_for(tmp_path: Path, gone: int, accepted: bool) -> None:
    """layer4 has 25 tensors besides counters: 23 are more than nine tenths, 22 are not."""
    content = share_of(gone)
    if accepted:
        assert len(taken(tmp_path / "x.pth", content)[0]) == 100 - gone
        return
    with pytest.raises(CheckpointError, match=r"backbone tensors are in the file|backbone's layer4 tensors are in the"):
        taken(tmp_path / "x.pth", content)
    weights, lines = taken(tmp_path / "x.pth", content, partial=True)
    assert len(weights) == 100 - gone
    assert f"loaded {100 - gone} of 100 backbone tensors" in lines[0]


def test_a_network_without_its_first_convolution_is_refused(tmp_path: Path) -> None:
    content = {name: tensor for name, tensor in OURS.items() if name != "conv1.weight"}
    with pytest.raises(CheckpointError) as error:
        taken(tmp_path / "x.pth", content)
    assert str(error.value) == (
        f"{tmp_path}/x.pth: only 5 of the 6 backbone's stem tensors are in the file as the network has them; not in "
        "the file: backbone.conv1.weight; --init-partial takes what fits (`mdp inspect` lists all of it)"
    )


def test_wrong_shapes_are_counted_as_missing_listed_and_never_loaded(tmp_path: Path) -> None:
    bent = {**OURS, "layer3.0.conv1.weight": torch.ones(32, 16, 3, 3, 1), "layer4.0.bn1.bias": torch.ones(63)}
    weights, lines = taken(tmp_path / "x.pth", bent)
    assert len(weights) == 118
    assert not {"backbone.layer3.0.conv1.weight", "backbone.layer4.0.bn1.bias"} & weights.keys()
    assert (
        "2 of 120 backbone tensors are not taken from it: backbone.layer3.0.conv1.weight, backbone.layer4.0" in lines[1]
    )
    assert "loaded 118 of 120" in lines[0]


def test_whole_numbers_do_not_become_fractions(tmp_path: Path) -> None:
    weights, lines = taken(tmp_path / "x.pth", {**OURS, "layer4.0.bn1.bias": torch.ones(64, dtype=torch.int8)})
    assert "backbone.layer4.0.bn1.bias" not in weights
    assert "layer4.0.bn1.bias" in lines[1]


def test_another_depth_is_refused_with_the_setting_that_fits(tmp_path: Path) -> None:
    torch.save(ResNet("resnet34", 8).state_dict(), tmp_path / "deep.pth")
    network = Segmentor(replace(NARROW, backbone="resnet50", width=8), 4)
    advice = "the network is resnet50 of width 8: set model.backbone=resnet34 and model.width=8; --init-partial takes"
    with pytest.raises(CheckpointError, match=re.escape(f"; the file has resnet34 of width 8, {advice}")):
        take(tmp_path / "deep.pth", network, PARTS)


def test_nothing_to_take_is_refused_even_in_part(tmp_path: Path) -> None:
    for content in ({"conv1.weight": torch.ones(5)}, {"other.weight": torch.ones(5), "x": torch.ones(())}):
        with pytest.raises(CheckpointError, match=r"only 0 of the 100 backbone tensors|none of its tensors has a name"):
            taken(tmp_path / "x.pth", content, partial=True)


def test_a_head_that_fits_by_half_is_refused_unless_left_out(tmp_path: Path) -> None:
    """Another head with a bottleneck of the same name: half of it would be trained, half at random."""
    theirs = build_segmentor(NARROW, 4, rng_of(1)).state_dict()
    theirs = {n: t for n, t in theirs.items() if n.startswith(("backbone.", "decode_head.bottleneck.bn"))}
    with pytest.raises(
        CheckpointError, match=r"only 5 of the 24 decode_head tensors .* --backbone-only leaves the head"
    ):
        taken(tmp_path / "x.pth", theirs)
    assert len(take(tmp_path / "x.pth", new_network(), ("backbone",))[0]) == 120
    assert len(taken(tmp_path / "x.pth", theirs, partial=True)[0]) == 125


def test_missing_running_statistics_are_told(tmp_path: Path) -> None:
    bare = {name: tensor for name, tensor in OURS.items() if "running" not in name}
    with pytest.raises(CheckpointError, match="only 80 of the 120 backbone tensors"):
        taken(tmp_path / "x.pth", bare)
    weights, lines = taken(tmp_path / "x.pth", bare, partial=True)
    assert len(weights) == 80
    assert lines[1].endswith(
        "20 BatchNorm layers come without running statistics: they start at mean 0 and variance 1, which is wrong "
        "until training has moved them"
    )


# Numbers


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path, bad: float) -> None:
    broken = {**OURS, "layer2.0.bn1.weight": OURS["layer2.0.bn1.weight"].clone().index_fill_(0, torch.tensor(3), bad)}
    for partial in (False, True):
        with pytest.raises(CheckpointError, match=r"not finite, in 1 tensors: backbone\.layer2\.0\.bn1\.weight"):
            taken(tmp_path / "x.pth", broken, partial=partial)


def test_numbers_that_are_not_finite_elsewhere_in_the_file_do_no_harm(tmp_path: Path) -> None:
    assert taken(tmp_path / "x.pth", {**OURS, "queue": torch.tensor([torch.nan])})[0]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_are_said(tmp_path: Path, kind: torch.dtype) -> None:
    theirs = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in OURS.items()}
    weights, lines = taken(tmp_path / "x.pth", theirs)
    name = "layer1.0.conv1.weight"
    assert weights[f"backbone.{name}"].dtype == torch.float32
    assert torch.equal(weights[f"backbone.{name}"], theirs[name].float())
    assert weights["backbone.bn1.num_batches_tracked"].dtype == torch.int64
    assert f"converted to float32: 100 {str(kind).removeprefix('torch.')} tensors" in lines[1]


def test_numbers_too_large_for_float32_are_refused(tmp_path: Path) -> None:
    theirs = {**OURS, "bn1.weight": torch.full((8,), 1e300, dtype=torch.float64)}
    with pytest.raises(CheckpointError, match="not finite"):
        taken(tmp_path / "x.pth", theirs)


def test_a_file_that_says_it_was_trained_on_bgr_is_told(tmp_path: Path) -> None:
    text = "img_norm_cfg = dict(mean=[103.5, 116.3, 123.7], to_rgb=False)"
    _, lines = taken(tmp_path / "x.pth", {"state_dict": OURS, "meta": {"config": text}})
    assert "trained on BGR images, and mdp gives it RGB" in lines[1]
    assert len(taken(tmp_path / "x.pth", {"state_dict": OURS, "meta": {"config": "to_rgb=True"}})[1]) == 1


# Which of several


def test_two_places_that_nothing_prefers_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    both = {**under("net_a.", OURS), **under("net_b.", OTHER)}
    with pytest.raises(
        CheckpointError, match=r"fit equally well \(120 tensors\), at net_a and at net_b; choose with --init-f"
    ):
        taken(tmp_path / "x.pth", both)
    for start in ("net_b", "net_b.", "outer", "outer.net_b"):
        both = under("outer." if "outer" in start else "", under("net_b.", OTHER)) | under("net_a.", OURS)
        weights, lines = taken(tmp_path / "x.pth", both, start)
        assert torch.equal(weights["backbone.conv1.weight"], OTHER["conv1.weight"])
        assert "in the file, not used: net_a" in lines[0]
    with pytest.raises(
        CheckpointError, match=r"--init-from nets: no backbone begins there; the best places are net_a, outer\.net_b"
    ):
        taken(tmp_path / "x.pth", both, "nets")


def test_the_outermost_place_is_chosen_by_a_point_and_a_follower_by_its_name(tmp_path: Path) -> None:
    both = {**OURS, **under("encoder_k.", OTHER)}
    for start, expected in ((".", OURS), ("encoder_k", OTHER), ("", OURS)):
        assert torch.equal(taken(tmp_path / "x.pth", both, start)[0]["backbone.conv1.weight"], expected["conv1.weight"])


# Odd files


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else dict(OURS)


def endless() -> dict[str, Any]:
    table: dict[str, Any] = dict(OURS)
    table["self"] = table
    return table


def laughs() -> dict[str, Any]:
    """Each dictionary holds the one below a hundred times: 10^10 names from a few bytes."""
    table: dict[str, Any] = dict(OURS)
    for _ in range(5):
        table = {str(number): table for number in range(100)}
    return table


ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "an empty dictionary": (dict, "no tensors in it$"),
    "a list": (lambda: [torch.ones(1)], "expected a state_dict, found list"),
    "a tensor": (lambda: torch.ones(3), "expected a state_dict, found Tensor"),
    "no tensors": (lambda: {"epoch": 3, "state_dict": {}}, r"no tensors in it \(it has 'epoch', 'state_dict'\)"),
    "tensors without dimensions": (lambda: {name: torch.tensor(1.0) for name in OURS}, "only 0 of the 120 backbone"),
    "empty tensors": (lambda: {name: torch.zeros(0) for name in OURS}, "only 0 of the 120 backbone"),
    "numbers as names": (lambda: dict(enumerate(OURS.values())), "none of its tensors has a name of the network's"),
    "one name for two": (
        lambda: {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}},
        "two things in it are called 'a.b'",
    ),
    "control characters": (lambda: {"\x1b[2J\nconv1.weight": torch.ones(1)}, r"it has '\\x1b\[2J\\nconv1.weight'"),
    "a long name": (lambda: {"x" * 5000: torch.ones(1)}, "nested too deeply, or too large"),
    "many levels": (lambda: nested(50), "nested too deeply, or too large"),
    "a dictionary in itself": (endless, "nested too deeply, or too large"),
    "dictionaries that multiply": (laughs, "nested too deeply, or too large"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_one_clear_line(tmp_path: Path, name: str) -> None:
    make, reason = ODD[name]
    with pytest.raises(CheckpointError, match=reason) as error:
        taken(tmp_path / "x.pth", make())
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_names_of_the_file_cannot_move_the_cursor_in_the_report(tmp_path: Path) -> None:
    prefix = "\x1b[2Jnet\r."
    _, lines = taken(tmp_path / "x.pth", {"ta\x07ble": under(prefix, OURS), "\x1b[31m": torch.ones(1)})
    assert "names after \\x1b[2Jnet\\r." in lines[0]
    assert lines[0].isprintable()


def test_a_few_levels_of_dictionaries_are_looked_into(tmp_path: Path) -> None:
    assert len(taken(tmp_path / "x.pth", nested(4))[0]) == 120


@pytest.mark.parametrize("extra", [argparse.Namespace(arch="resnet50"), np.float64(0.3), torch.nn.Conv2d(1, 1, 1)])
def test_objects_beside_the_tensors_are_left_out_and_told(tmp_path: Path, extra: Any) -> None:
    torch.save({"teacher": under("backbone.", OURS), "args": extra, "epoch": 3}, tmp_path / "full.pth")
    weights, lines = take(tmp_path / "full.pth", new_network(), PARTS)
    assert torch.equal(weights["backbone.conv1.weight"], OURS["conv1.weight"])
    told = [line for line in lines if "skipped, unread: " in line]
    assert len(told) == (not isinstance(extra, torch.nn.Module))  # whose tensors count as tensors


def test_no_line_is_offered_that_would_run_a_file_made_to_harm(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return eval, ("1",)

    torch.save({"state_dict": OURS, "x": Harm()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"save the bare state_dict$"):
        read_file(tmp_path / "x.pth")


# The published network


def published(blocks: tuple[int, ...] = (3, 4, 6, 3)) -> Weights:
    """Zeros of the published shapes, which take no memory."""
    return {
        name: torch.zeros((), dtype=torch.int64 if name.endswith("tracked") else torch.float32).expand(shape)
        for name, shape in resnet_names(blocks)
    }


def test_a_published_resnet50_fits_ours_tensor_by_tensor() -> None:
    file = published()
    assert len(file) == 320
    learnt = [t for n, t in file.items() if not n.endswith(("tracked", "running_mean", "running_var"))]
    assert sum(tensor.numel() for tensor in learnt) == 25_557_032  # as torchvision publishes it
    with torch.device("meta"):
        own = Segmentor(NetworkSettings(), 21).state_dict()
    found = judge(WeightsFile(file, {}, "", (), {}), own, ("backbone",))
    assert found.problem == ""
    assert [(row.part, len(row.own), len(row.matched)) for row in found.rows] == [
        ("stem", 6, 6), ("layer1", 60, 60), ("layer2", 78, 78), ("layer3", 114, 114), ("layer4", 60, 60),
    ]  # fmt: skip
    assert found.match.unexpected == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("blocks", "name"), [((3, 4, 6, 3), "resnet50"), ((3, 4, 23, 3), "resnet101"), ((3, 8, 36, 3), "")]
)
def test_depth_is_told_from_names_and_shapes(blocks: tuple[int, ...], name: str) -> None:
    found = pure_call(recognise, under("module.encoder_q.", published(blocks)))
    assert found == (name, 64, False, False, False)
    assert backbone_for(found) == name


def test_relatives_of_a_resnet_are_told_apart() -> None:
    file = published()
    grouped = {**file, "layer1.0.conv2.weight": torch.zeros(64, 2, 3, 3)}
    pooled = {**file, "layer2.0.downsample.1.weight": torch.zeros(512, 256, 1, 1)}
    deep = {**file, "conv1.0.weight": torch.zeros(32, 3, 3, 3)}
    assert recognise(grouped) == ("resnet50", 64, False, False, True)
    assert recognise(pooled) == ("resnet50", 64, False, True, False)
    assert recognise(deep) == ("resnet50", 64, True, False, False)
    for other in (grouped, pooled):
        relative = recognise(other)
        assert relative is not None
        assert backbone_for(relative) == ""
    assert recognise({"conv1.weight": torch.zeros(1), "blahlayer4.0.conv1.weight": torch.zeros(1)}) is None


# Whole runs


def start_of(folder: Path) -> Weights:
    """The query encoder in the checkpoint that is written before the first step."""
    tensors = tensors_of(folder, "previous")
    return {name.removeprefix("query."): tensor for name, tensor in tensors.items() if name.startswith("query.")}


def test_pretraining_starts_from_the_file_bit_for_bit(tmp_path: Path) -> None:
    torch.save({"state_dict": under("module.encoder_q.", OURS), "epoch": 3}, tmp_path / "moco.pth.tar")
    folder = run_pretraining(request(("pretrain.steps", 2), init=str(tmp_path / "moco.pth.tar")))
    start = start_of(folder)
    assert all(torch.equal(start[f"backbone.{name}"], tensor) for name, tensor in OURS.items())
    log = (folder / "log.txt").read_text()
    assert "loaded 120 of 120 backbone tensors from" in log
    assert "starts at random: decode_head, projection_head" in log


def test_fine_tuning_takes_the_settings_of_init_from_the_recipe(tmp_path: Path) -> None:
    torch.save({**under("net_a.", OURS), **under("net_b.", share_of(60))}, tmp_path / "x.pth")
    changes = [("run.init_from", "net_b"), ("run.init_partial", True), ("finetune.steps", 1), ("finetune.lr", 0.0)]
    folder = run_finetuning(request(*changes, ("finetune.min_lr", 0.0), init=str(tmp_path / "x.pth")))
    assert "loaded 40 of 100 backbone tensors" in (folder / "log.txt").read_text()
    tensors = tensors_of(folder)
    assert torch.equal(tensors["network.backbone.conv1.weight"], OURS["conv1.weight"])
    with pytest.raises(CheckpointError, match="only 40 of the 100 backbone tensors"):
        run_finetuning(request(("run.init_from", "net_b"), init=str(tmp_path / "x.pth")))
