"""Names of the same parameters in the libraries that networks come from and go to.

Our own names are MMSegmentation's: `backbone.` with torchvision's names below it (a three-convolution stem is
`backbone.stem.N`), `decode_head.` below it.  A layout is a list of (own prefix, foreign prefix); the first that fits
counts, so that one table serves both directions.
"""

from collections.abc import Iterable

Layout = tuple[tuple[str, str], ...]

_STEM = (*((f"backbone.stem.{i}.", f"conv1.{i}.") for i in (0, 1, 3, 4, 6)), ("backbone.stem.7.", "bn1."))
_HEAD = (
    ("decode_head.aspp.", "classifier.0."),
    ("decode_head.conv.", "classifier.1."),
    ("decode_head.bn.", "classifier.2."),
    ("decode_head.conv_seg.", "classifier.4."),
)

# A bare backbone
BARE: Layout = (("backbone.", ""),)  # torchvision; timm for all that have no stem of three convolutions; smp's encoders
DEEP_STEM: Layout = (*_STEM, ("backbone.", ""))  # timm's resnet50c and its like, for MMSegmentation's ResNetV1c
# A whole segmentation network
MMSEG: Layout = (("backbone.", "backbone."), ("decode_head.", "decode_head."))
# with two heads, the second of which takes the logits of the first
MMSEG_CASCADE: Layout = (
    ("backbone.", "backbone."), ("decode_head.regions.", "decode_head.0."), ("decode_head.", "decode_head.1."),
)  # fmt: skip
TORCHVISION_DEEPLAB: Layout = (("backbone.", "backbone."), *_HEAD)


def to_foreign(name: str, layout: Layout) -> str | None:
    """Our parameter's name in the other library; None when it has no such thing.

    >>> to_foreign("backbone.stem.3.weight", DEEP_STEM), to_foreign("projection_head.0.weight", BARE)
    ('conv1.3.weight', None)
    """
    return next((theirs + name[len(own) :] for own, theirs in layout if name.startswith(own)), None)


def to_own(name: str, layout: Layout) -> str | None:
    """The other library's parameter under our name; None when we have no such thing.

    >>> to_own("classifier.4.bias", TORCHVISION_DEEPLAB), to_own("aux_classifier.4.bias", TORCHVISION_DEEPLAB)
    ('decode_head.conv_seg.bias', None)
    """
    return next((own + name[len(theirs) :] for own, theirs in layout if name.startswith(theirs)), None)


def foreign_names(names: Iterable[str], layout: Layout) -> dict[str, str]:
    """Our names of the parameters that the other library has, each with its name there, in the order given.

    Raises ValueError where two would get one name.

    >>> foreign_names(["backbone.conv1.weight", "projection_head.0.weight"], BARE)
    {'backbone.conv1.weight': 'conv1.weight'}
    """
    found = {name: foreign for name in names if (foreign := to_foreign(name, layout)) is not None}
    if len(set(found.values())) < len(found):
        taken = list(found.values())
        twice = sorted({name for name in taken if taken.count(name) > 1})
        raise ValueError(f"two parameters would both be called {', '.join(twice[:3])}")
    return found
