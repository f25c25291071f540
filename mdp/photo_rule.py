"""How photos are read, as a dataset's YAML file says under `image:`.  Plain data: nothing here needs NumPy or torch.

Without mean and deviation photos become 8-bit RGB.  With them, or with another number of bands than 1 or 3, each band
is a channel of the network's image: its values as they are, the declared range brought to [0, 1].
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

EIGHT_BITS = (0.0, 255.0)


class PhotoRule(NamedTuple):
    """How photos become images."""

    range: tuple[float, float] | None = None  # the values that are black and white; between them it is linear
    bands: tuple[int, ...] | None = None  # counted from 1: red, green and blue, one for grey; or any, in order
    exif: str = ""  # what is turned as EXIF asks: "" nothing, "photo", or "both" with the label map
    mean: tuple[float, ...] | None = None  # of each channel over the training photos, in the files' own values
    std: tuple[float, ...] | None = None

    @property
    def channels(self) -> int | None:
        """The number of channels that are kept as they are; None: photos become 8-bit RGB.

        >>> PhotoRule(bands=(3, 2, 1)).channels, PhotoRule(bands=(3, 2, 1, 4)).channels
        (None, 4)
        """
        if self.bands and (self.mean or len(self.bands) not in (1, 3)):
            return len(self.bands)
        return len(self.mean) if self.mean else None

    @property
    def limits(self) -> tuple[float, float]:
        """The range, or that of 8 bits."""
        return self.range or EIGHT_BITS

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation of each channel in [0, 1]; None where they are not declared.

        >>> PhotoRule(range=(0, 10), mean=(5,), std=(2,)).statistics()
        ((0.5,), (0.2,))
        """
        if self.mean is None or self.std is None:
            return None
        low, high = self.limits
        span = high - low
        return tuple((value - low) / span for value in self.mean), tuple(value / span for value in self.std)

    def as_json(self) -> dict[str, Any]:
        """Its values without those that are not given."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in self._asdict().items() if value
        }


PLAIN = PhotoRule()


def rule_of(values: Mapping[str, Any]) -> PhotoRule:
    """`PhotoRule.as_json` backwards.  Raises TypeError or ValueError where it is none."""
    if not isinstance(values, Mapping) or not set(values) <= set(PhotoRule._fields):
        raise TypeError("a table of rules by which photos are read")
    numbers = {key: tuple(map(float, values[key])) for key in ("range", "mean", "std") if key in values}
    bands = {"bands": tuple(map(int, values["bands"]))} if "bands" in values else {}
    return PhotoRule(exif=str(values.get("exif", "")), **numbers, **bands)  # type: ignore[arg-type]
