"""The answers of methods that take the usual views, keep nothing of their losses and leave weights alone.

And that have no schedule of their own.
"""

from collections.abc import Mapping
from typing import Any

from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes
from mdp.core.views import ViewPlan

PRESET: Mapping[str, Any] = {}


def view_plan(settings: Any, default: ViewPlan) -> ViewPlan:
    """The two views that the recipe describes."""
    return default


def remember(state: Any, kept: Any, settings: Any, processes: Processes, numbers: Mapping[str, float]) -> Any:
    """The state as it is."""
    return state


def settle_(pair: EncoderPair[Any], settings: Any) -> None:
    """Nothing."""
