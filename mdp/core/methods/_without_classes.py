"""The answers of methods that compare whole images and know no classes."""

from typing import Any

from torch import Tensor

from mdp.core.networks.pair import EncoderPair


def known_prototypes(state: Any, settings: Any) -> None:
    """None: there are none."""


def prototype_images(state: Any, settings: Any) -> None:
    """None: there are none."""


def class_scores(pair: EncoderPair[Any], state: Any, images: Tensor, settings: Any) -> None:
    """None: there are none."""
