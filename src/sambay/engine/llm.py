"""The front door of the library: load a checkpoint, generate text."""

from __future__ import annotations

import numbers
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, cast

import torch

from sambay import hub
from sambay.checkpoint import GENERATION_FILE, load_end_ids, load_generation_config, resolve_dtype
from sambay.engine.budget import memory_bytes
from sambay.engine.core import Engine
from sambay.engine.outputs import RequestOutput, StreamEvent
from sambay.engine.params import SamplingParams
from sambay.engine.speculation import Speculation
from sambay.errors import CheckpointError, ConfigError, PromptError, SamplingError
from sambay.kv import cache_dtype_of
from sambay.model import SambaY
from sambay.ops.backend import rest_torch
from sambay.progress import task_progress
from sambay.quant.resident import make_resident
from sambay.tokenizer import TOKENIZER_FILE, Tokenizer

__all__ = ["LLM", "EventStream", "Prompt", "resolve_device"]

Prompt: TypeAlias = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, or a mapping with `prompt` or `prompt_token_ids`; with both the ids are run."""

Messages: TypeAlias = Sequence[Mapping[str, Any]]

_OF_VLLM = {
    "num_gpu_blocks_override": "memory says how much the states may take, such as memory='4GB'",
    "tensor_parallel_size": "a model runs on one device",
    "pipeline_parallel_size": "a model runs on one device",
    "gpu_memory_utilization": "memory says how much the states may take, such as memory='4GB'",
    "swap_space": "what does not fit into memory is parked in files by itself",
    "quantization": "a checkpoint that `sambay quantize` wrote says itself how it is quantised",
}
"""Arguments that vLLM's users may bring and that mean nothing here, and why."""


class EventStream(Iterator[StreamEvent]):
    """The events of one request, as they come. Several streams of one model can be read in turns.

    A request that is no longer wanted is aborted by `close`, by leaving a `with` block, or by letting go of the
    stream, be it read or not. What ended it as "error" is raised after the last event.

    Args:
        engine: runs the request.
        prompt: its text, if it was given as text.
        prompt_ids: its tokens.
        params: how to generate.
        priority: the lowest goes first.
        deadline: seconds from now, after which it ends.

    Raises:
        PromptError, ContextError, SamplingError: a bad prompt or parameter.
    """

    _closed = True  # until the engine has taken the request: `__del__` runs where it was refused, too

    def __init__(
        self,
        engine: Engine,
        prompt: str | None,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> None:
        self._engine = engine
        self._events: deque[StreamEvent] = deque()
        self.output = engine.add(
            prompt, prompt_ids, params, on_event=self._events.append, priority=priority, deadline=deadline
        )
        """The request so far, live."""
        self._closed = False

    def __next__(self) -> StreamEvent:
        while not self._closed:
            if self._events:
                return self._events.popleft()
            if self.output.finished:
                self._closed = True
                if self.output.error is not None:
                    raise self.output.error
                break
            try:
                self._engine.step()
            except BaseException:
                self.close()
                raise
        raise StopIteration

    def close(self) -> None:
        """Abort the request if it still runs; no further events come."""
        if not self._closed:
            self._closed = True
            self._engine.abort(self.output.request_id)
            self._events.clear()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class LLM:
    """A model that generates, with the names that vLLM's users know.

    Of vLLM's arguments, `trust_remote_code`, `enforce_eager` and `tensor_parallel_size=1` are accepted and change
    nothing: no code of a checkpoint is ever run, and nothing else than one device and eager mode is there. What
    else this class has no argument for is refused. Other than in vLLM, `use_tqdm` is off by default, and
    `SamplingParams.max_tokens` is 4096.

    A quantised model on the CPU, or one of bfloat16, runs on threads of its own kernels: torch is told to compute with
    one thread then, for the whole process, because its waiting threads would hold the cores.

    Args:
        model: a checkpoint directory, a model id on the hub, or None for the model bundled with the package.
        tokenizer: directory of another tokenizer; None takes the checkpoint's. A checkpoint without a
            tokenizer runs on token ids.
        dtype: "float32", "bfloat16", "float16", a torch dtype, or "auto" for that of the checkpoint. With "auto" the
            compiled kernels take over on the CPU where a checkpoint is of bfloat16: its matrices stay so, activations
            are float32. "bfloat16" leaves all to torch, whose prompts are faster on a CPU that multiplies bfloat16
            (measured with AVX-512 BF16), and whose tokens come at half the rate.
        kv_cache_dtype: what keys and values are kept in: "float32", "bfloat16", "float16", "int8" (half of the
            memory of bfloat16, for long contexts), or "auto": that of the weights, bfloat16 for a quantised model.
        device: a torch device, or "auto" for a GPU where there is one.
        mmap: leave the weights that the kernels read in the mapped file (True), or copy them into large pages
            (False), which takes a second and reads faster; None copies large ones where memory has room twice over.
        seed: of requests that bring no seed of their own.
        max_model_len: tokens of a sequence at most; None takes the model's context, or what the memory holds of it.
        max_num_seqs: sequences that run at once, if the memory holds so many.
        max_num_batched_tokens: tokens computed in one step; longer prompts go in chunks of this size.
        memory: what the states of all sequences, parked ones and the prefix cache may take together: bytes, or such as
            "4GB". None takes half of what is free beside the weights, though no more than twice of what `max_num_seqs`
            sequences of `max_model_len` tokens need. It is not taken before it is used. When it is short, the prefix
            cache gives way, then the sequences that came last are parked in temporary files (in `TMPDIR`, or else
            /var/tmp) and go on later.
        enable_prefix_caching: do not compute again what a prompt has in common with earlier texts.
        state_dir: a directory where the state at the end of each turn is saved (up to four times `memory` in all), so
            that conversations go on after a restart without being computed again.
        deterministic: refuse to run where a token could depend on what else is computed at the same time, on how
            prompts are cut, or on what was cached. On the compiled kernels, with float32 or quantised weights, none
            does, asked or not: the same seed gives the same text, to the bit, however busy the model is.
        speculation: look up what followed the last tokens where the text had them before, and compute several tokens at
            once as long as the same comes: "off", "on" (wherever something is found), or "auto" (the default): where it
            is measured to be faster, and cannot change a token. It never does on the compiled kernels.
        speculative_config: what vLLM calls it: {"method": "ngram", "num_speculative_tokens": 7, "prompt_lookup_min": 2,
            "prompt_lookup_max": 32}, which turns it on.
        revision: branch, tag or commit of a model on the hub.
        progress: show progress bars while weights load.
        **others: arguments of vLLM, see above.

    Raises:
        ConfigError, CheckpointError: the checkpoint or an argument is bad; the message says how to mend it.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        tokenizer: str | Path | None = None,
        dtype: str | torch.dtype = "auto",
        kv_cache_dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        mmap: bool | None = None,
        seed: int = 0,
        max_model_len: int | None = None,
        max_num_seqs: int = 16,
        max_num_batched_tokens: int = 512,
        memory: int | str | None = None,
        enable_prefix_caching: bool = True,
        state_dir: str | Path | None = None,
        deterministic: bool = False,
        speculation: str | None = None,
        speculative_config: Mapping[str, Any] | None = None,
        revision: str | None = None,
        progress: bool = False,
        **others: object,
    ) -> None:
        for name, value in others.items():
            if name in ("trust_remote_code", "enforce_eager") or (name == "tensor_parallel_size" and value == 1):
                continue
            why = f": {_OF_VLLM[name]}" if name in _OF_VLLM else ""
            raise ConfigError(f"LLM has no argument {name}{why}; leave it out, or see help(sambay.LLM)")
        for name, value in (
            ("max_num_seqs", max_num_seqs),
            ("max_num_batched_tokens", max_num_batched_tokens),
        ):
            if not _is_integer(value) or value < 1:
                raise ConfigError(f"{name} is {value!r}: it must be an integer, 1 or more")
        for name, flag in (("enable_prefix_caching", enable_prefix_caching), ("deterministic", deterministic)):
            if not isinstance(flag, bool):
                raise ConfigError(f"{name} is {flag!r}: it must be True or False")
        if state_dir is not None and not enable_prefix_caching:
            raise ConfigError("state_dir saves what the prefix cache holds: leave out enable_prefix_caching=False")
        drafts = Speculation.of(speculation, speculative_config)
        budget = None if memory is None else memory_bytes(memory)
        kept, wanted = cache_dtype_of(kv_cache_dtype), resolve_dtype(dtype)
        directory = hub.bundled_model() if model is None else hub.resolve(model, revision=revision)
        self.directory = directory
        with task_progress("Loading", enabled=progress) as bar:
            self.model = SambaY.from_pretrained(
                directory,
                dtype=wanted,
                device=resolve_device(device),
                inference=wanted is None,
                progress=bar.update,
            )
            make_resident(self.model, None if mmap is None else not mmap, bar.update)
        self.model.cache_dtype = kept
        if self.model.on_kernels:
            rest_torch()
        config = self.model.config
        context = config.max_position_embeddings
        if max_model_len is not None and not (_is_integer(max_model_len) and 1 <= max_model_len <= context):
            raise ConfigError(
                f"max_model_len is {max_model_len!r}: it must be an integer from 1 to the model's context of {context}"
            )
        self.tokenizer: Tokenizer | None = None
        if tokenizer is not None:
            self.tokenizer = Tokenizer.from_pretrained(tokenizer)
        elif (directory / TOKENIZER_FILE).exists():
            self.tokenizer = Tokenizer.from_pretrained(directory)
        if self.tokenizer is not None and self.tokenizer.vocab_size > config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {self.tokenizer.vocab_size} tokens but the model only {config.vocab_size}: "
                "they belong to different checkpoints"
            )
        self._generation = load_generation_config(directory)
        try:
            self.get_default_sampling_params()
        except SamplingError as error:
            raise CheckpointError(f"{directory / GENERATION_FILE}: {error}") from None
        self.engine = Engine(
            self.model,
            self.tokenizer,
            end_ids=load_end_ids(directory, config),
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            seed=seed,
            memory=budget,
            enable_prefix_caching=enable_prefix_caching,
            state_dir=None if state_dir is None else Path(state_dir).expanduser(),
            deterministic=deterministic,
            speculation=drafts,
        )
        self.max_model_len = self.engine.max_model_len

    def get_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            PromptError: there is none (`tokenizer` is None then).
        """
        if self.tokenizer is None:
            raise PromptError(
                f"{self.directory} has no {TOKENIZER_FILE}, so text cannot be read: give token ids, or tokenizer=DIR"
            )
        return self.tokenizer

    def get_default_sampling_params(self, **changes: Any) -> SamplingParams:  # noqa: ANN401 - SamplingParams' fields
        """What the checkpoint's `generation_config.json` recommends, with some fields changed."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        known = {name: self._generation[name] for name in names if self._generation.get(name) is not None}
        if self._generation.get("do_sample") is False:
            known["temperature"] = 0.0
        return SamplingParams(**(known | changes))

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
        priority: int = 0,
        deadline: float | None = None,
    ) -> list[RequestOutput]:
        """Complete prompts.

        Args:
            prompts: one prompt or several: text, token ids, or `{"prompt": ...}` / `{"prompt_token_ids": ...}`.
            sampling_params: one for all prompts or one each; None takes the checkpoint's recommendation.
            use_tqdm: show a progress bar.
            priority: requests of a lower number go before those of a higher one that others make at the same time.
            deadline: seconds from now, after which what is not finished ends as "deadline", with what it has.

        Returns:
            One output per prompt, in their order. One of several that failed (the model's numbers overflowed)
            ends with `finish_reason` "error" and has an `error`.

        Raises:
            PromptError, ContextError, SamplingError: a bad prompt or parameter; nothing has been run then.
            SambaYError: every prompt failed.
        """
        encoded = [self._encode(p) for p in _as_prompts(prompts)]
        return self._drive(encoded, sampling_params, use_tqdm, priority, deadline)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
        add_generation_prompt: bool = True,
        enable_thinking: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> list[RequestOutput]:
        """Answer conversations, rendered with the checkpoint's chat template.

        Args:
            messages: one conversation, or several: lists of `{"role": ..., "content": ...}`, where the content is
                text or a list of `{"type": "text", "text": ...}`.
            sampling_params: as in `generate`.
            use_tqdm: show a progress bar.
            add_generation_prompt: end the prompt where the assistant begins.
            enable_thinking: False has the model answer without thinking; None leaves it to the chat template.
            chat_template_kwargs: further variables of the template.
            priority: as in `generate`.
            deadline: as in `generate`.

        Raises:
            PromptError: no template, no tokenizer, or malformed messages; otherwise as `generate`.
        """
        several = isinstance(messages, Sequence) and bool(messages) and not isinstance(messages[0], Mapping)
        conversations = messages if several else [messages]
        extra = dict(chat_template_kwargs or {}) | _thinking(enable_thinking)
        return self._drive(
            [self._encode_chat(c, add_generation_prompt, extra) for c in cast("Sequence[Messages]", conversations)],
            sampling_params,
            use_tqdm,
            priority,
            deadline,
        )

    def stream(
        self,
        prompt: Prompt | Messages,
        sampling_params: SamplingParams | None = None,
        *,
        enable_thinking: bool | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> EventStream:
        """Generate token by token.

        Args:
            prompt: a prompt as in `generate`, or a conversation as in `chat` (a list of messages).
            sampling_params: how to generate.
            enable_thinking: as in `chat`, for a conversation.
            priority: as in `generate`.
            deadline: as in `generate`.

        Returns:
            An iterator of events, one per token. Other calls may be made while it is open.

        Raises:
            PromptError, ContextError, SamplingError: at the call, before anything is run.
        """
        text, ids = self.encode(prompt, enable_thinking)
        params = sampling_params or self.get_default_sampling_params()
        return EventStream(self.engine, text, ids, params, priority=priority, deadline=deadline)

    def encode(self, prompt: Prompt | Messages, enable_thinking: bool | None = None) -> tuple[str | None, list[int]]:
        """The text, if there is one, and the token ids of a prompt or of a conversation, as `stream` takes them.

        Raises:
            PromptError: it is empty, or malformed.
        """
        if isinstance(prompt, list | tuple) and bool(prompt) and isinstance(prompt[0], Mapping):
            return self._encode_chat(cast("Messages", prompt), True, _thinking(enable_thinking))
        return self._encode(cast("Prompt", prompt))

    def _drive(
        self,
        encoded: list[tuple[str | None, list[int]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
        show: bool,
        priority: int,
        deadline: float | None,
    ) -> list[RequestOutput]:
        if isinstance(sampling_params, Sequence):
            if len(sampling_params) != len(encoded):
                raise SamplingError(
                    f"{len(sampling_params)} sampling_params were given for {len(encoded)} prompts: "
                    "give one, or one each"
                )
            params = list(sampling_params)
        else:
            params = [sampling_params or self.get_default_sampling_params()] * len(encoded)
        outputs: list[RequestOutput] = []
        try:
            for (text, ids), param in zip(encoded, params, strict=True):
                outputs.append(self.engine.add(text, ids, param, priority=priority, deadline=deadline))
            with task_progress("Generating", enabled=show) as bar:
                while not all(output.finished for output in outputs):
                    self.engine.step()
                    bar.update(sum(output.finished for output in outputs), len(outputs))
        finally:
            for output in outputs:
                self.engine.abort(output.request_id)
        errors = [output.error for output in outputs if output.error is not None]
        if errors and len(errors) == len(outputs):
            raise errors[0]
        return outputs

    def _encode(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        text = None
        if isinstance(prompt, Mapping):
            if "prompt_token_ids" in prompt:
                text, prompt = prompt.get("prompt"), prompt["prompt_token_ids"]
            elif "prompt" in prompt:
                prompt = prompt["prompt"]
            else:
                raise PromptError(f"a prompt mapping has keys {sorted(prompt)}: give prompt or prompt_token_ids")
        if isinstance(prompt, str):
            if not prompt:
                raise PromptError("the prompt is empty: give at least one character")
            return prompt, self.get_tokenizer().encode(prompt)
        ids: Any = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        if isinstance(ids, Sequence) and not isinstance(ids, bytes):
            # Numbers of numpy become Python's; what is no integer is for the engine to refuse.
            return text, [x.tolist() if hasattr(x, "tolist") else x for x in ids]
        raise PromptError(f"a prompt is a {type(prompt).__name__}: give text or a list of token ids")

    def _encode_chat(self, messages: Messages, add: bool, extra: dict[str, Any]) -> tuple[str | None, list[int]]:
        tokenizer = self.get_tokenizer()
        text = tokenizer.render_chat(messages, add_generation_prompt=add, **extra)
        return text, tokenizer.encode_chat(messages, add_generation_prompt=add, **extra)


def _thinking(enable: bool | None) -> dict[str, Any]:
    """The variable of the chat template, if it is said."""
    return {} if enable is None else {"enable_thinking": enable}


def _as_prompts(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    """Tell one prompt from several: text, a mapping or a flat list of ids is one."""
    if isinstance(prompts, str | Mapping) or hasattr(prompts, "tolist"):
        return [cast("Prompt", prompts)]
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes):
        raise PromptError(f"prompts is a {type(prompts).__name__}: give text, token ids, or a list of those")
    if prompts and isinstance(prompts[0], numbers.Integral):
        return [cast("Prompt", prompts)]
    return cast("Sequence[Prompt]", prompts)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of that name; "auto" is a CUDA device where there is one, else the CPU.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reason = "there is none of that name"  # torch would list all that it was ever built for
    try:
        found = torch.device(device)
        reason = ""
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        usable = ["auto", "cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        usable += ["mps"] if torch.backends.mps.is_available() else []
        reason = reason or str(error).splitlines()[0].partition(". ")[0]
        raise ConfigError(
            f"device {str(device)!r} cannot be used ({reason}): it must be one of {', '.join(usable)}"
        ) from None
    return found
