"""What is tried on the device that is not there: every method and form, fine-tuning with every head, inference."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from mdp.core.chance import generator
from mdp.core.metrics import confusion_matrix
from mdp.core.networks import NetworkSettings, build_segmentor
from mdp.core.networks.decode_heads import HEADS
from mdp.io.inference.predict import predict, probabilities
from mdp.io.recipe.layers import Layer
from mdp.io.recipe.settings import EvalSettings
from tests.fake_cuda.mode import DEVICE, FakeCuda, on_device
from tests.fake_cuda.report import Report
from tests.whole_steps import FORMS, NARROW, Sizes, Training, Tuning, class_scores, method_layer

STEP = "step 2"  # the phase that stands for a step: momentum and bank are there, libraries have warmed up
BRIEF = "step 1"  # the only one of a brief case
_IMAGE = (75, 100)
_CONTRAST: Layer = {"name": "pixel_contrast", "max_views": 2, "embedding": 8, "warmup_steps": 0, "negatives": 3}
CRITERIA: dict[str, Layer] = {
    "contrast with a memory": {**_CONTRAST, "capacity": 5},
    "contrast in a batch": {**_CONTRAST, "memory": "off"},
    "dice": {"name": "dice"},
    "focal": {"name": "focal"},
    "lovasz": {"name": "lovasz"},
}
_MET_ELSEWHERE = ("multi_dataset, mix", "region_bank, negatives")


class Way(NamedTuple):
    """How a run computes."""

    precision: str = "fp32"
    channels_last: bool = True
    deterministic: bool = False

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "NCHW"
        return f"{self.precision}, {layout}" + (", deterministic" if self.deterministic else "")


WAYS = (Way(), Way("bf16"), Way("bf16", channels_last=False), Way("fp16"), Way(deterministic=True))
TUNING_WAYS = (Way(), Way("bf16"), Way("fp16"), Way(deterministic=True))
INFERENCE = {
    "whole": EvalSettings(),
    "slide": EvalSettings(mode="slide", window=(48, 48)),
    "scales and flip": EvalSettings(scales=(0.75, 1.0), flip=True),
    "resized": EvalSettings(scale=(160, 80)),
}


class Case(NamedTuple):
    """Something to try; raises what torch would raise."""

    name: str
    run: Callable[[], Report]


def cases() -> Iterator[Case]:
    """All cases."""
    for form in FORMS:
        for way in WAYS:
            yield method_case(form, way)
    for head in HEADS:
        for way in TUNING_WAYS:
            yield tuning_case(head, way)
    for form in CRITERIA:
        for way in TUNING_WAYS:
            yield tuning_case("linear", way, form)
    yield from _heads_in_turn()
    for name in INFERENCE:
        yield inference_case(name)


def fewest() -> Iterator[Case]:
    """Each head, way, criterion and mode of inference once, and each form but two whose parts others have.

    Forms are tried briefly, but for one.
    """
    for number, form in enumerate(form for form in FORMS if form not in _MET_ELSEWHERE):
        yield method_case(form, WAYS[number % len(WAYS)], brief=number > 0)
    yield from _heads_in_turn()
    for name in INFERENCE:
        yield inference_case(name)


def _heads_in_turn() -> Iterator[Case]:
    """Every head, as many of them with a criterion as there are criteria; two steps in every way, one then."""
    forms = (*CRITERIA, *(None for _ in HEADS))
    for number, (head, form) in enumerate(zip(HEADS, forms, strict=False)):
        yield tuning_case(head, TUNING_WAYS[number % len(TUNING_WAYS)], form, brief=number >= len(TUNING_WAYS))


def method_case(form: str, way: Way, brief: bool = False) -> Case:
    """Two steps of pretraining, packing for a checkpoint, and the scores of a validation.

    `brief`: one step, on images that are augmented already; photometry is the same for all.
    """
    return Case(f"{form}, {way}", partial(_pretrain, form, way, brief))


def _pretrain(form: str, way: Way, brief: bool) -> Report:
    with (mode := FakeCuda(way.deterministic)) as report:
        training = Training(method_layer(form), DEVICE, way._asdict(), Sizes())
        mode.learns(training.run.trainee.network)
        if brief:
            training.items = [
                views._replace(images=tuple(group / 255 for group in views.images), draws=())
                for views in training.items
            ]
        _steps(training, 1 if brief else 2, report)
        with report.in_phase("checkpoint"):
            training.run.method.pack(training.run.state)
        with report.in_phase("validation"):
            training.run.method.known_prototypes(training.run.state, training.run.chosen)
            class_scores(training)
        _stayed(training.run.trainee.network)
    return report


def tuning_case(head: str, way: Way, form: str | None = None, brief: bool = False) -> Case:
    """Two steps of fine-tuning; the mean over valid pixels where the way is bf16, over all pixels elsewhere.

    `form`: with that criterion in place of cross-entropy; pixel contrast has an extra head and a state.
    `brief`: one step.
    """
    words = f"finetune {head} with {form}, {way}" if form else f"finetune {head}, {way}"
    return Case(words, partial(_finetune, head, way, CRITERIA[form] if form else None, brief))


def _finetune(head: str, way: Way, criterion: Layer | None, brief: bool) -> Report:
    with (mode := FakeCuda(way.deterministic)) as report:
        tuning = Tuning(head, DEVICE, way._asdict(), {"avg_non_ignore": way.precision == "bf16"}, criterion)
        mode.learns(tuning.run.trained)
        _steps(tuning, 1 if brief else 2, report)
        _stayed(tuning.run.trained)
    return report


def _steps(training: Training | Tuning, count: int, report: Report) -> None:
    for step in range(1, count + 1):
        with report.in_phase(f"step {step}"):
            training.advance()


def _stayed(network: nn.Module) -> None:
    """Raises AssertionError when a weight has left the device, which would mean that nothing was tried."""
    assert all(on_device(parameter) for parameter in network.parameters())


def inference_case(name: str) -> Case:
    """Classes, probabilities and the confusion matrix of an image."""
    return Case(f"inference, {name}", partial(_infer, INFERENCE[name]))


def _infer(settings: EvalSettings) -> Report:
    model = {**NARROW, "dilations": tuple(NARROW["dilations"])}
    network = build_segmentor(NetworkSettings(**model), 21, generator(0))
    image = torch.randint(0, 256, (3, *_IMAGE), generator=generator(1)).to(torch.uint8)
    with FakeCuda() as report:
        network.to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.eval()
        with report.in_phase("predict"):
            guess = predict(network, image, settings, DEVICE)
            confusion_matrix(guess, torch.zeros(*_IMAGE, dtype=torch.int16), 21)
            probabilities(network, image, settings, DEVICE)
        _stayed(network)
    return report
