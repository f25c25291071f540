"""What a part finds: checks that hold or fail, and figures; a line of JSON each, so that a part cut short has told."""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

_TEXT = 400  # characters of an error that are kept
_LISTED = 5  # items of a list that are printed


class Finding(NamedTuple):
    """One line of a part."""

    part: str
    name: str
    passed: bool | None  # None: a figure without a verdict
    seconds: float  # since the part began
    figures: dict[str, Any]

    def line(self) -> str:
        """The finding for people."""
        mark = {None: "     ", True: "ok   ", False: "FAIL "}[self.passed]
        figures = " ".join(f"{key}={_short(value)}" for key, value in self.figures.items())
        return f"[{self.seconds:6.1f}] {mark}{self.part}: {self.name} {figures}".rstrip()


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > _LISTED:
        return f"({len(value)} of them)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Findings:
    """Prints what a part finds and adds it to a file, at once."""

    def __init__(self, part: str, path: Path) -> None:
        self.part, self.path, self.began = part, path, time.perf_counter()

    def figure(self, name: str, **figures: Any) -> None:
        """Something measured."""
        self._add(name, None, figures)

    def check(self, name: str, passed: bool, **figures: Any) -> None:
        """Something that must hold."""
        self._add(name, bool(passed), figures)

    def near(self, name: str, found: Tensor, expected: Tensor, limit: float) -> None:
        """Two tensors differ by at most `limit`, relative, in the Euclidean norm; NaN never does."""
        a, b = (tensor.detach().double().cpu().flatten() for tensor in (found, expected))
        error = float((a - b).norm() / b.norm().clamp(min=1e-30))
        self.check(name, error <= limit, error=error, limit=limit)

    @contextmanager
    def going_on(self, name: str) -> Iterator[None]:
        """An error inside is a failed check, and what comes after is still worth its time."""
        try:
            yield
        except Exception as error:
            traceback.print_exc(limit=-5)
            self.check(name, False, error=f"{type(error).__name__}: {str(error)[:_TEXT]}")

    def _add(self, name: str, passed: bool | None, figures: dict[str, Any]) -> None:
        finding = Finding(self.part, name, passed, round(time.perf_counter() - self.began, 1), figures)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finding._asdict(), default=str) + "\n")
        print(finding.line(), flush=True)


def read(path: Path) -> list[Finding]:
    """The findings in a file; none where a part found nothing."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Finding(**json.loads(line)) for line in lines]
