"""Errors that a user can cause, each one clear sentence: the value, the bound and the remedy.

The command line prints them without a traceback and exits with a non-zero status. Asserts, by contrast,
are for our own mistakes.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BodyError",
    "CheckpointError",
    "ConfigError",
    "ContextError",
    "MissingExtraError",
    "ModelNotFoundError",
    "NotFoundError",
    "PromptError",
    "SambaYError",
    "SamplingError",
    "StateError",
    "StateWarning",
    "TutorError",
]


class SambaYError(ValueError):
    """Base of everything that is the input's fault; its message is fit to show to a person as it is."""


class ConfigError(SambaYError):
    """A model configuration or a recipe with an impossible value."""


class CheckpointError(SambaYError):
    """A checkpoint that is missing, truncated, corrupt, or that does not fit its configuration."""


class PromptError(SambaYError):
    """A prompt that cannot be run: empty, of the wrong type, or with token ids outside the vocabulary."""


class ContextError(PromptError):
    """A prompt or a generation longer than the model's context."""


class SamplingError(SambaYError):
    """Sampling parameters outside their range."""


class StateError(SambaYError):
    """A saved state that is damaged, of another model, or that cannot be written."""


class StateWarning(UserWarning):
    """A saved state that was not used or not written, and why; what needed it goes on without it."""


class BodyError(SambaYError):
    """A request in another program's protocol that cannot be read.

    Args:
        message: what is wrong, and what would be right.
        param: the field that it is about, if it is one.
    """

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class NotFoundError(SambaYError):
    """A request for something that is not there, or not any more."""


class ModelNotFoundError(NotFoundError):
    """A request for a model that is not served."""


class TutorError(SambaYError):
    """What a learner or a teacher asks for that cannot be done; the message is for them."""


class BackendError(SambaYError):
    """A backend that was asked for and cannot serve: not installed, or not for this machine."""


class MissingExtraError(SambaYError, ImportError):
    """An optional dependency is not installed.

    Args:
        module: the module that could not be imported.
        extra: the extra of `sambay` that brings it.
        purpose: what it is needed for, in a few words.
    """

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {module}, which is not installed: pip install 'sambay[{extra}]'")
