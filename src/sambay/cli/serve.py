"""`sambay serve`: models behind HTTP."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from sambay.cli import options
from sambay.cli.console import Screen
from sambay.errors import MissingExtraError

__all__ = ["EXAMPLES", "serve"]

EXAMPLES = """Examples:

sambay serve

sambay serve flash=./phi4-flash-4bit tutor=./tutor --memory 8GB --port 8080

sambay serve ./checkpoint --host 0.0.0.0 --api-key-file keys.txt --tls-cert cert.pem --tls-key key.pem

curl localhost:8000/v1/chat/completions -d '{"messages": [{"role": "user", "content": "What is 3 + 4?"}]}'
"""

_SERVER = "Server"


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
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 for all.", rich_help_panel=_SERVER)] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes any that is free.", rich_help_panel=_SERVER)
    ] = 8000,
    max_num_seqs: Annotated[int, typer.Option(min=1, max=4096, help="Sequences that run at once.")] = 16,
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
    """Serve models over HTTP, in OpenAI's protocol."""
    _require()
    from sambay.server import Models, ServedModel, create_app
    from sambay.server.listen import bind, run

    listener = bind(host, port)
    served = []
    for text in models or [""]:
        name, model = _named(text)
        llm = options.open_model(
            model,
            device=device,
            dtype=dtype,
            kv_cache_dtype=kv_cache_dtype,
            mmap=mmap,
            threads=threads,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            memory=memory,
            state_dir=state_dir,
            deterministic=deterministic,
        )
        served.append(ServedModel.of(name or llm.directory.name, llm))
    app = create_app(Models(served))
    shown = f"[{host}]" if ":" in host else host
    screen = Screen(sys.stdout)
    run(app, listener, ready=lambda: screen.write(f"http://{shown}:{listener.getsockname()[1]}\n"))


def _require() -> None:
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, "serve", "sambay serve")


def _named(text: str) -> tuple[str | None, str | None]:
    """The name of a model, if one is given, and the model; a directory whose own name has a "=" is one."""
    name, equals, model = text.partition("=")
    if equals and not Path(text).is_dir():
        return name, model
    return None, text or None
