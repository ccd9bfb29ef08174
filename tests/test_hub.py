"""From a name or a path to a directory; every failure of the hub is one sentence with the remedy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from sambay import hub
from sambay.errors import CheckpointError
from sambay.hub import resolve

NAME = "owner/Model-2.5"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    return directory


class FakeHub:
    """Stands in for the two calls that reach the network, and remembers them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.refusal: Exception | None = None
        self.failure: Exception | None = None
        self.calls: list[tuple[str, dict]] = []
        self.bars: list[bool] = []

    def model_info(self, name: str, **options) -> None:
        assert options["timeout"] <= 10
        if self.refusal is not None:
            raise self.refusal

    def snapshot_download(self, name: str, **options) -> str:
        from huggingface_hub.utils.tqdm import are_progress_bars_disabled

        self.calls.append((name, options))
        self.bars.append(not are_progress_bars_disabled())
        if self.failure is not None:
            raise self.failure
        return str(self.directory)


@pytest.fixture
def fake(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    fake = FakeHub(checkpoint)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda _, *args, **kw: fake.model_info(*args, **kw))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.chdir(tmp_path)
    return fake


# --- directories ---


def test_a_directory_is_itself(fake: FakeHub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(checkpoint) == checkpoint
    assert resolve(str(checkpoint)) == checkpoint
    assert resolve("model") == Path("model")
    assert resolve("./model/") == Path("model")
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    monkeypatch.setenv("USERPROFILE", str(checkpoint.parent))
    assert resolve("~/model") == checkpoint
    assert not fake.calls


def test_a_directory_without_config(fake: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"^owner/name holds no config\.json: a checkpoint directory"):
        resolve("owner/name")


def test_a_file(fake: FakeHub, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file: give the directory"):
        resolve(checkpoint / "config.json")


@pytest.mark.parametrize(
    "path",
    ["./absent", "../absent", "/absent/model", "~/absent-model", "owner/model.safetensors", "model.GGUF", ".",
     "C:\\models\\phi", Path("owner/name")],
)  # fmt: skip
def test_a_path_that_does_not_exist_never_reaches_the_hub(fake: FakeHub, path: str | Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not exist|holds no config"):
        resolve(path)
    assert not fake.calls


@pytest.mark.parametrize("name", ["", "a/b/c", "owner/", "/", "sp ace", "ö/ä", "-x", "a\0b", "x" * 5000, "hf://a/b"])
def test_what_cannot_be_a_name(fake: FakeHub, name: str) -> None:
    with pytest.raises(CheckpointError):
        resolve(name)
    assert not fake.calls


# --- the hub ---


@pytest.mark.parametrize("name", [NAME, "gpt2", "microsoft/Phi-4-mini-flash-reasoning"])
def test_a_name_is_downloaded(fake: FakeHub, checkpoint: Path, name: str) -> None:
    assert resolve(name, revision="v1") == checkpoint
    [(asked, options)] = fake.calls
    assert asked == name
    assert options["revision"] == "v1"
    assert options["local_files_only"] is False
    patterns = options["allow_patterns"]
    from huggingface_hub.utils import filter_repo_objects

    wanted = {"config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
              "chat_template.jinja", "tokenizer.json", "vocab.json", "merges.txt"}  # fmt: skip
    refused = {"pytorch_model.bin", "modeling_phi4flash.py", "tokenizer.py", "README.md", "model.gguf"}
    assert set(filter_repo_objects(wanted | refused, allow_patterns=patterns)) == wanted


def test_what_describes_a_model_comes_without_its_weights(fake: FakeHub, checkpoint: Path) -> None:
    assert resolve(NAME, weights=False) == checkpoint
    resolve(NAME)
    assert [options["ignore_patterns"] for _, options in fake.calls] == ["*.safetensors", None]


def test_progress_bars_are_as_asked_and_put_back(fake: FakeHub) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    resolve(NAME)
    resolve(NAME, progress=False)
    assert fake.bars == [True, False]
    assert not are_progress_bars_disabled()


def test_what_is_cached_serves_without_the_network(fake: FakeHub, checkpoint: Path) -> None:
    fake.refusal = ConnectionError("no route")
    assert resolve(NAME) == checkpoint
    assert fake.calls[0][1]["local_files_only"] is True


def http_error(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)  # its constructor wants a response of the HTTP client of the day
    Exception.__init__(error, "403 Client Error. (Request ID: x)\n\nmore lines")
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (http_error(errors.RepositoryNotFoundError), "is not on the hub, or is private: check the name"),
        (http_error(errors.GatedRepoError), "is gated: accept its terms"),
        (http_error(errors.RevisionNotFoundError), "has no revision None: give a branch"),
        (http_error(errors.HfHubHTTPError), "could not be downloaded (403 Client Error. (Request ID: x))"),
        (errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set: unset it, or download it elsewhere"),
        (errors.HFValidationError("two dashes"), "is not a valid hub name (two dashes)"),
        (OSError(28, "No space left on device"), "does not fit on the disk: make room"),
        (RuntimeError("xet: No space left on device"), "does not fit on the disk: make room"),
        (ConnectionError("no route"), "could not be downloaded (no route): check the network, or"),
        (TimeoutError(), "could not be downloaded (TimeoutError): check the network"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("refused", [True, False])
def test_every_failure_is_one_sentence(fake: FakeHub, error: Exception, said: str, refused: bool) -> None:
    fake.refusal = error if refused else None
    fake.failure = errors.LocalEntryNotFoundError("nothing cached") if refused else error
    with pytest.raises(CheckpointError) as caught:
        resolve(NAME)
    assert said in str(caught.value)
    assert str(caught.value).startswith((NAME, repr(NAME)))
    assert "\n" not in str(caught.value)


def test_a_hub_model_without_config(fake: FakeHub, checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        resolve(NAME)


# --- the real client, without a network ---

RESOLVE = """
import sys, time
from sambay.errors import CheckpointError
from sambay.hub import resolve
assert "huggingface_hub" not in sys.modules
import huggingface_hub, huggingface_hub.errors
start = time.monotonic()
try:
    resolve("owner/name")
except CheckpointError as error:
    print(f"{time.monotonic() - start:.1f}", error)
"""


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be downloaded"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_the_real_client_fails_at_once(tmp_path: Path, setting: dict[str, str], said: str) -> None:
    source = str(Path(hub.__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": source,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
        **setting,
    }
    script = subprocess.run(
        [sys.executable, "-c", RESOLVE],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    seconds, message = script.stdout.split(maxsplit=1)
    assert said in message
    assert message.count("\n") == 1
    assert float(seconds) < 15
    assert "Traceback" not in script.stderr


def test_a_silent_server_does_not_hold_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_HUB_ANSWER_S", 0.5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(CheckpointError, match="could not be downloaded"):
            resolve("owner/name")
    assert time.monotonic() - start < 10
