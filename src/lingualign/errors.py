"""Errors a person can act on: one line, no traceback, the fix named. Commands exit with the code each class carries."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right. The message is one line and names the fix."""

    exit_code = 2


class DataError(UserError):
    """A prompt file, a column, a language or a pairing is wrong."""


class ConfigError(UserError):
    """A setting is unknown, out of range or contradicts another."""


class UnsupportedModel(UserError):
    """The model's structure or weights are not what the method needs."""


class NotEnoughMemory(UserError):
    """The plan needs more memory or disk than there is."""


class NumericalError(UserError):
    """A matrix is not positive definite, or a feature is NaN or infinite."""


class FingerprintMismatch(UserError):
    """An edit, a run folder or a cache belongs to another model, data set or setting."""


class EndpointError(UserError):
    """An inference server cannot be reached, refuses the requests, or does not answer in time."""


class GateFailed(UserError):
    """A `--require` gate does not hold."""

    exit_code = 1


class MissingDependency(UserError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run `pip install 'lingualign[{extra}]'`")
