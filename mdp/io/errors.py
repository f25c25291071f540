"""Errors that are the user's to mend: each is one clear line and carries the exit code of the process.

Anything that is not an `MdpError` is a bug of ours and shows its traceback (exit code 1).
"""

from collections.abc import Mapping
from typing import Any


class MdpError(Exception):
    """Something outside the program has to change; the message says what was expected, what came, what to do."""

    exit_code = 2


class RecipeError(MdpError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class DatasetError(MdpError):
    """Files of a dataset are missing, damaged or disagree with its label space; `sample` is whose they are."""

    exit_code = 3
    sample: Any = None


class Diverged(MdpError):
    """The loss or the gradients stopped being finite numbers; `record` says what is known of the step."""

    exit_code = 4

    def __init__(self, message: str, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.record = dict(record or {})


class CheckpointError(MdpError):
    """A checkpoint is missing, damaged or does not fit the network."""

    exit_code = 5


class ResourceError(MdpError):
    """Disk, memory, permission, device or worker process gave out."""

    exit_code = 6


class Preempted(MdpError):
    """Stopped by a signal after writing a checkpoint; the same command with --resume goes on."""

    exit_code = 75


class ProcessError(MdpError):
    """Another process of the same run failed, does not answer or runs something else."""

    exit_code = 8

    def __init__(self, message: str, tells: bool = False) -> None:
        super().__init__(message)
        self.tells = tells  # whether this process says it for others that cannot


class Stopped(BaseException):
    """A signal asks to stop, before there is anything to save; no Exception, so that no handler of errors takes it."""
