"""From what a person types for a model, a directory or a name on the Hugging Face hub, to a directory."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from sambay.errors import CheckpointError

__all__ = ["bundled_model", "resolve"]

# Weights in safetensors only, and what describes them: never pickles, never code.
_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt"]

_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
# A hub name may hold a dot ("Qwen2.5-7B"), so only the suffixes of weights and their company say "a file".
_FILE_SUFFIXES = (".safetensors", ".json", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".zip", ".gz")

# How long the hub may take to say that it is there; afterwards what is cached is used. The download that
# follows has timeouts and retries of its own.
_HUB_ANSWER_S = 10.0


def bundled_model() -> Path:
    """The directory of the small model that comes with the package.

    Raises:
        CheckpointError: the installation lacks it.
    """
    return _checked(Path(__file__).with_name("assets") / "tutor")


def resolve(model: str | Path, *, revision: str | None = None, progress: bool = True, weights: bool = True) -> Path:
    """Find a model: a directory as it is, anything else as a name on the Hugging Face hub, downloaded once.

    Without the network a model that was downloaded before is found in the hub's cache.

    Args:
        model: a checkpoint directory, or a hub name such as `microsoft/Phi-4-mini-flash-reasoning`. An
            existing directory goes before a hub model of the same name.
        revision: branch, tag or commit on the hub; without meaning for a directory.
        progress: show progress bars on stderr while downloading.
        weights: whether they are wanted, and not only what describes them.

    Returns:
        A directory that holds `config.json`.

    Raises:
        CheckpointError: no such directory, a file, a directory without `config.json`, a name that cannot be a
            hub name, or any failure of the hub (not found, gated, no network, offline, disk full).
    """
    text = str(model)
    path = Path(model)
    with contextlib.suppress(RuntimeError):  # no home directory: then "~" is a name like any other
        path = path.expanduser()
    try:
        is_directory, exists = path.is_dir() and bool(text), path.exists() and bool(text)
    except (OSError, ValueError) as error:  # not permitted, too long, a null byte
        raise CheckpointError(f"{text!r} cannot be opened ({error}): give a readable directory") from None
    if is_directory:
        return _checked(path)
    if exists:
        raise CheckpointError(f"{path} is a file: give the directory that holds it, with its config.json")
    is_path = isinstance(model, Path) or text.startswith((".", "/", "~", "\\")) or "\\" in text
    if is_path or text.lower().endswith(_FILE_SUFFIXES):
        raise CheckpointError(f"{path} does not exist: give a checkpoint directory, or a hub name")
    if not _HUB_ID.fullmatch(text):
        raise CheckpointError(
            f"{text!r} is neither an existing directory nor a hub name: a hub name is name or owner/name, "
            "of letters, digits, '-', '_' and '.'"
        )
    return _checked(_download(text, revision, progress, weights))


def _checked(directory: Path) -> Path:
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"{directory} holds no config.json: a checkpoint directory holds config.json, the tokenizer and "
            "model.safetensors or its shards"
        )
    return directory


def _download(name: str, revision: str | None, progress: bool, weights: bool) -> Path:
    # Imported here: a second of start-up that a local directory need not pay.
    from huggingface_hub import HfApi, snapshot_download

    refusal: Exception | None = None
    try:
        # Asked first, because snapshot_download itself waits for a silent server without any bound.
        HfApi().model_info(name, revision=revision, timeout=_HUB_ANSWER_S)
    except Exception as error:  # of many kinds, by version of the hub's client and of what it is built on
        refusal = error
    try:
        with _progress_bars(progress):
            found = snapshot_download(
                name,
                revision=revision,
                allow_patterns=_PATTERNS,
                ignore_patterns=None if weights else "*.safetensors",
                local_files_only=refusal is not None,
            )
    except Exception as error:  # likewise; nothing that goes wrong here is a mistake of ours
        raise CheckpointError(_explanation(name, revision, refusal or error)) from (refusal or error)
    return Path(found)


@contextlib.contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _explanation(name: str, revision: str | None, error: Exception) -> str:
    """One sentence on what the hub said, with the remedy."""
    from huggingface_hub import errors

    what = name if revision is None else f"{name} at revision {revision!r}"
    elsewhere = "or download it elsewhere and pass the directory"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{what} is not in the hub's cache and HF_HUB_OFFLINE is set: unset it, {elsewhere}"
    if isinstance(error, errors.GatedRepoError):
        return f"{what} is gated: accept its terms on the hub and log in (hf auth login), {elsewhere}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r}: give a branch, tag or commit that the hub shows for it"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{what} is not on the hub, or is private: check the name, log in (hf auth login), {elsewhere}"
    if isinstance(error, errors.HFValidationError):
        return f"{name!r} is not a valid hub name ({_first_line(error)}): give owner/name, or a directory"
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return f"{what} does not fit on the disk: make room, set HF_HOME to a larger disk, {elsewhere}"
    return f"{what} could not be downloaded ({_first_line(error)}): check the network, {elsewhere}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
