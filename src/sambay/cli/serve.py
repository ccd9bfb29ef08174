"""`sambay serve`: models behind HTTP."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from sambay.cli import options
from sambay.cli.console import Screen
from sambay.errors import ConfigError, MissingExtraError

__all__ = ["EXAMPLES", "serve"]

EXAMPLES = """Examples:

sambay serve

sambay serve flash=./phi4-flash-4bit tutor=./tutor --memory 8GB --port 8080

sambay serve ./checkpoint --host 0.0.0.0 --api-key-file keys.txt --tls-cert cert.pem --tls-key key.pem

curl localhost:8000/v1/chat/completions -d '{"messages": [{"role": "user", "content": "What is 3 + 4?"}]}'
"""

_SERVER, _WHO, _LIMITS = "Server", "Who may call", "Limits"


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]MODEL...",
            help="Checkpoint directories or names on the Hugging Face hub, each with the name that requests call it by "
            "(by default that of the directory); without any the model that comes with sambay.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.", rich_help_panel=_SERVER)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes any that is free.", rich_help_panel=_SERVER)
    ] = 8000,
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="Speak HTTPS, with this certificate (PEM).", rich_help_panel=_SERVER, show_default=False),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            help="Its private key, if it is in a file of its own.", rich_help_panel=_SERVER, show_default=False
        ),
    ] = None,
    drain_timeout: Annotated[
        float,
        typer.Option(min=0, help="Seconds that requests are given to end after SIGTERM.", rich_help_panel=_SERVER),
    ] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Write the log as JSON.", rich_help_panel=_SERVER)] = False,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Write prompts and answers to the log.", rich_help_panel=_SERVER)
    ] = False,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SAMBAY_API_KEY",
            help="A key that requests must bring; may be given several times.",
            rich_help_panel=_WHO,
            show_default=False,
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="A file of such keys, one a line.", rich_help_panel=_WHO, show_default=False),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Pages that may call, such as https://chat.example; '*' for all.",
            rich_help_panel=_WHO,
            show_default=False,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name that this server is called by, beside those of this machine; '*' for any.",
            rich_help_panel=_WHO,
            show_default=False,
        ),
    ] = None,
    rate_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests in a minute of one key, or of one address where there are no keys.",
            rich_help_panel=_WHO,
            show_default=False,
        ),
    ] = None,
    max_queue: Annotated[
        int, typer.Option(min=0, help="Sequences of a model that may wait.", rich_help_panel=_LIMITS)
    ] = 256,
    max_body: Annotated[str, typer.Option(help="The largest body of a request.", rich_help_panel=_LIMITS)] = "8MiB",
    head_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a request's head to arrive.", rich_help_panel=_LIMITS)
    ] = 10,
    body_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for its body to arrive.", rich_help_panel=_LIMITS)
    ] = 60,
    write_timeout: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds that a client may take nothing of its answer.", rich_help_panel=_LIMITS),
    ] = 60,
    max_num_seqs: Annotated[
        int, typer.Option(min=1, max=4096, help="Sequences of a model that run at once.", rich_help_panel=_LIMITS)
    ] = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    max_model_len: options.MaxModelLen = None,
    memory: options.Memory = None,
    state_dir: options.StateDir = None,
    deterministic: options.Deterministic = False,
    threads: options.Threads = None,
) -> None:
    """Serve models over HTTP: to programs as OpenAI, Ollama or Anthropic do, to people as a page.

    Only this machine is listened to, unless --host says otherwise. SIGTERM or Ctrl-C ends the server when what it has
    accepted is answered. With several models --memory is shared out evenly.
    """
    _require()
    from sambay.engine.budget import memory_bytes
    from sambay.server import Models, ServedModel, Settings, create_app
    from sambay.server.listen import bind, check_tls, make_config, run
    from sambay.server.logs import log, setup
    from sambay.server.models import share_memory

    if tls_key is not None and tls_cert is None:
        raise typer.BadParameter("--tls-key is that of a certificate: add --tls-cert")
    if tls_cert is not None:
        check_tls(tls_cert, tls_key)
    local = host in ("localhost", "::1") or host.startswith("127.")
    settings = Settings(
        keys=(*(api_key or ()), *_read_keys(api_key_file)),
        origins=tuple(cors_origin or ()),
        hosts=_hosts(host, local, allowed_host or []),
        max_body=memory_bytes(max_body, "--max-body"),
        max_queue=max_queue,
        rate_limit=rate_limit,
        head_timeout=head_timeout,
        body_timeout=body_timeout,
        write_timeout=write_timeout,
        drain_timeout=drain_timeout,
        log_prompts=log_prompts,
    )
    with bind(host, port) as listener:
        wanted = _named(models or [""])
        share = share_memory(memory, [directory for _, directory in wanted])
        served = []
        for name, directory in wanted:
            llm = options.open_model(
                str(directory),
                device=device,
                dtype=dtype,
                kv_cache_dtype=kv_cache_dtype,
                mmap=mmap,
                threads=threads,
                max_model_len=max_model_len,
                max_num_seqs=max_num_seqs,
                memory=share,
                state_dir=state_dir / name if state_dir is not None and len(wanted) > 1 else state_dir,
                deterministic=deterministic,
            )
            served.append(ServedModel.of(name, llm))
        config = make_config(create_app(Models(served), settings), tls_cert=tls_cert, tls_key=tls_key)
        url = _url(host, listener.getsockname()[1], tls_cert is not None)

        def tell() -> None:
            names = [name for name, _ in wanted]
            if as_json:
                log("listening", url=url, models=names)
            else:
                Screen(sys.stdout).write(f"{', '.join(names)} at {url}\n")
            if not local and not settings.keys:
                warnings.warn(f"anyone who reaches {host} can use this server: give it an --api-key", stacklevel=1)

        setup(as_json=as_json)
        run(config, listener, ready=tell)


def _require() -> None:
    for module in ("fastapi", "uvicorn", "prometheus_client", "latex2mathml"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, "serve", "sambay serve")


def _named(texts: list[str]) -> list[tuple[str, Path]]:
    """The names of models and their directories, found before any of them is loaded."""
    from sambay import hub

    found: list[tuple[str, Path]] = []
    for text in texts:
        name, equals, model = text.partition("=")
        if not equals or Path(text).is_dir():  # a directory whose own name has a "=" is one
            name, model = "", text
        directory = hub.resolve(model) if model else hub.bundled_model()
        if not name:  # a directory's own; what comes from the hub lies in one that is named by a checksum
            name = directory.resolve().name if not model or Path(model).expanduser().is_dir() else model
        found.append((name, directory))
    names = [name for name, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two models are called {twice!r}: give each a name of its own, such as {twice}-2=DIR")
    return found


def _read_keys(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        keys = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8 ({error}): it must hold an API key a line") from error
    keys = [key for key in keys if key and not key.startswith("#")]
    if not keys:
        raise ConfigError(f"{path} holds no API key: write one a line, or leave --api-key-file out")
    return keys


def _hosts(host: str, local: bool, allowed: list[str]) -> tuple[str, ...] | None:
    """The names that requests may call the server by: on the loopback its own, elsewhere any unless some are given."""
    if "*" in allowed or not (local or allowed):
        return None
    return ("localhost", "127.0.0.1", "::1", host, *(name.lower() for name in allowed))


def _url(host: str, port: int, secure: bool) -> str:
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if secure else 'http'}://{shown}:{port}/"
