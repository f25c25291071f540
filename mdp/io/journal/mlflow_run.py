"""A run as MLflow has it (the extra `mlflow`, which is imported when it is asked for).

Server and experiment are what its own environment variables say (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME).
"""

import importlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_EXPERIMENT = "mdp"  # where MLFLOW_EXPERIMENT_NAME names none
_SECONDS = 5.0  # between messages to the server
_VALUES = 1000  # numbers in a message, and settings: what a server takes
_SETTINGS = 100
_LENGTH = 500  # characters of a setting
# a server that is gone is given up within half a minute, not within the library's twenty: training waits for it
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def refusal() -> str:
    """It asks nothing beforehand."""
    return ""


def start(folder: Path, name: str | None, settings: Mapping[str, Any]) -> "MlflowRun":
    """A new run, or the one of that name."""
    return MlflowRun(folder, name, settings)


class MlflowRun:
    """A run whose numbers are sent every few seconds."""

    def __init__(self, folder: Path, name: str | None, settings: Mapping[str, Any]) -> None:
        for key, value in _IMPATIENT.items():
            os.environ.setdefault(key, value)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        library: Any = importlib.import_module("mlflow")
        self.entities: Any = importlib.import_module("mlflow.entities")
        self.client = library.MlflowClient()
        if name:
            self.name: str = name
            self.client.update_run(name, "RUNNING")
        else:
            wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
            found = self.client.get_experiment_by_name(wanted)
            experiment = found.experiment_id if found else self.client.create_experiment(wanted)
            self.name = self.client.create_run(experiment, run_name=folder.resolve().name).info.run_id
            self._describe(settings)
        self.place = f"run {self.name} of {library.get_tracking_uri()}"
        self.waiting: list[Any] = []
        self.sent = time.monotonic()

    def _describe(self, settings: Mapping[str, Any]) -> None:
        params = [self.entities.Param(key, value[:_LENGTH]) for key, value in _flat(settings, "")]
        for first in range(0, len(params), _SETTINGS):
            self.client.log_batch(self.name, params=params[first : first + _SETTINGS])

    def record(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.waiting += [self.entities.Metric(key, value, now, step) for key, value in values.items()]
        if time.monotonic() - self.sent >= _SECONDS:
            self._send()

    def picture(self, step: int, tag: str, path: Path) -> None:
        self.client.log_artifact(self.name, str(path), tag.rpartition("/")[0] or None)

    def close(self, exit_code: int) -> None:
        self._send()
        self.client.set_terminated(self.name, "FINISHED" if exit_code == 0 else "FAILED")

    def _send(self) -> None:
        waiting, self.waiting, self.sent = self.waiting, [], time.monotonic()
        for first in range(0, len(waiting), _VALUES):
            self.client.log_batch(self.name, metrics=waiting[first : first + _VALUES])


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
