"""No head at all: the classifier sits on the backbone's last map, as linear evaluation has it.

Shape legend: B images, h x w feature grid.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mdp.core.networks.heads import Head, Inputs


class Linear(nn.Module):
    """Without layers; the segmentor adds the classifier."""

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """(B, inputs, h, w), as it is."""
        return features


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return Linear()


HEAD = Head(None, (), takes="last", inner_dropout=0.0, dropout=0.0, build=build, channels_of=lambda inputs: inputs.last)
