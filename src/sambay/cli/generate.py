"""`sambay generate`: one prompt, its completions, and the end."""

from __future__ import annotations

import json
import re
import secrets
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sambay.cli import options
from sambay.cli.console import ReplyPrinter, Screen
from sambay.errors import PromptError, SamplingError

if TYPE_CHECKING:
    from sambay.engine import LLM, CompletionOutput, RequestOutput, SamplingParams, StructuredOutputsParams
    from sambay.engine.llm import EventStream, Messages, Prompt

__all__ = ["EXAMPLES", "generate"]

EXAMPLES = """Examples:

sambay generate -p "What is 3/4 + 5/6?"

echo "Solve 3x - 7 = 11." | sambay generate --temperature 0

sambay generate -p "What is 12 * 7?" --max-thinking-tokens 200 --regex '.*boxed.[0-9]+.'

sambay generate ./checkpoint --raw -p "Once upon a time" -n 3 --seed 7

sambay generate ./checkpoint --ids "1 2 3" --max-tokens 16 --json
"""

_OUTPUT = "Output"


def generate(
    model: options.Model = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="The prompt; without it standard input is read.", show_default=False),
    ] = None,
    system: options.System = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
    ] = False,
    ids: Annotated[
        str | None,
        typer.Option(help="Token ids as the prompt, such as '1 2 3' or 1,2,3.", show_default=False),
    ] = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="Text that ends a completion; may be repeated.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Completions of the prompt.")] = 1,
    max_thinking_tokens: options.MaxThinkingTokens = None,
    no_thinking: options.NoThinking = False,
    json_schema: Annotated[
        Path | None,
        typer.Option(help="A file with the JSON schema of the answer.", rich_help_panel=_OUTPUT, show_default=False),
    ] = None,
    regex: Annotated[
        str | None,
        typer.Option(
            help="A regular expression that the whole answer matches.", rich_help_panel=_OUTPUT, show_default=False
        ),
    ] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on over the end, to --max-tokens.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end.", rich_help_panel=_OUTPUT)
    ] = False,
    logprobs: Annotated[
        int | None,
        typer.Option(
            help="With --json: log-probabilities of so many alternatives per token.",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ] = None,
    hide_thinking: options.HideThinking = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    max_model_len: options.MaxModelLen = None,
    memory: options.Memory = None,
    state_dir: options.StateDir = None,
    deterministic: options.Deterministic = False,
    speculation: options.SpeculationMode = "auto",
    threads: options.Threads = None,
) -> None:
    """Answer one prompt, streamed as it is generated.

    The prompt is one user message where the checkpoint has a chat template, and is continued as it is where it
    has none, or with --raw.
    """
    if ids is not None and (prompt is not None or system is not None):
        raise typer.BadParameter("--ids is the whole prompt: leave out --prompt and --system")
    if raw and system is not None:
        raise typer.BadParameter("--raw uses no chat template, so there is no place for --system")
    if logprobs is not None and not as_json:
        raise typer.BadParameter("--logprobs are only part of --json output: add --json")
    if no_thinking and (raw or ids is not None):
        raise typer.BadParameter("--no-thinking is for the chat template: use --max-thinking-tokens 0 instead")
    if json_schema is not None and regex is not None:
        raise typer.BadParameter("an answer follows --json-schema or --regex: give one of them")
    wanted: str | list[int] = _parse_ids(ids) if ids is not None else _text_prompt(prompt, raw)
    given = options.check_sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        # Drawn here, not by the engine, so that --json can say which one gives this text again.
        seed=secrets.randbits(31) if seed is None else seed,
        stop=stop or None,
        n=n,
        ignore_eos=ignore_eos,
        logprobs=logprobs,
        max_thinking_tokens=max_thinking_tokens,
        structured_outputs=_structure(json_schema, regex),
    )
    llm = options.open_model(
        model,
        device=device,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        mmap=mmap,
        threads=threads,
        max_model_len=max_model_len,
        memory=memory,
        state_dir=state_dir,
        deterministic=deterministic,
        speculation=speculation,
        max_num_seqs=min(n, 16),
    )
    params = llm.get_default_sampling_params(**given)
    events = llm.stream(
        _whole_prompt(llm, wanted, raw, system), params, enable_thinking=False if no_thinking else None
    )  # checks everything before the first thing is printed
    output = _run(llm, events, params, hide_thinking, silent=as_json)
    if as_json:
        screen = Screen(sys.stdout)
        screen.write(json.dumps(_report(llm, output, params), ensure_ascii=False) + "\n")


def _text_prompt(prompt: str | None, raw: bool) -> str:
    if prompt is None:
        if sys.stdin.isatty():
            raise PromptError("there is no prompt: give one with -p TEXT or on standard input")
        prompt = options.read_text(sys.stdin.read)
        if not raw:
            prompt = prompt.rstrip("\n")  # echo adds it, the person did not mean it
    if not prompt.strip():
        raise PromptError("the prompt is empty: give at least one character that is not white space")
    return prompt


def _parse_ids(text: str) -> list[int]:
    words = re.split(r"[,\s]+", text.strip(" \t\n,"))
    for word in words:
        if not re.fullmatch("[0-9]{1,18}", word):
            raise PromptError(f"--ids has {word!r}: give whole numbers, such as '1 2 3' or 1,2,3")
    return [int(word) for word in words]


def _whole_prompt(llm: LLM, prompt: str | list[int], raw: bool, system: str | None) -> Prompt | Messages:
    """The prompt as it is, or as a message where there is a chat template."""
    templated = llm.tokenizer is not None and llm.tokenizer.has_chat_template
    if isinstance(prompt, str) and templated and not raw:
        before = [] if system is None else [{"role": "system", "content": system}]
        return [*before, {"role": "user", "content": prompt}]
    if system is not None:
        raise PromptError("this checkpoint has no chat template, so there is no place for --system: leave it out")
    return prompt


def _structure(json_schema: Path | None, regex: str | None) -> StructuredOutputsParams | None:
    """What the answer must be, checked before a model is loaded for nothing."""
    if json_schema is None and regex is None:
        return None
    from sambay.engine import StructuredOutputsParams
    from sambay.engine.structure import check_structure

    try:
        text = None if json_schema is None else json_schema.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SamplingError(f"{json_schema} is no text in UTF-8 ({error}): convert it first") from error
    wanted = StructuredOutputsParams(json=text, regex=regex)
    check_structure(wanted)
    return wanted


def _run(llm: LLM, events: EventStream, params: SamplingParams, hide_thinking: bool, *, silent: bool) -> RequestOutput:
    screen, notes = Screen(sys.stdout), Screen(sys.stderr)
    printer = None
    if not silent:
        printer = ReplyPrinter(screen, hide_thinking=hide_thinking, count=params.n, as_ids=llm.tokenizer is None)
    try:
        for event in events:
            if printer is not None:
                printer.push(event)
    finally:
        screen.end_line()
    output = events.output
    if notes.is_terminal and any(one.finish_reason == "length" for one in output.outputs):
        notes.note(f"(cut at {max(len(one.token_ids) for one in output.outputs)} tokens)")
    return output


def _report(llm: LLM, output: RequestOutput, params: SamplingParams) -> dict[str, object]:
    metrics = output.metrics
    generated = sum(len(one.token_ids) for one in output.outputs)
    decoding = metrics.finished - metrics.first_token
    # The first token of each completion comes from the prompt's logits.
    rate = (generated - params.n) / decoding if decoding > 0 else 0.0
    return {
        "model": str(llm.directory),
        "prompt": output.prompt,
        "prompt_token_ids": output.prompt_token_ids,
        "outputs": [_completion(one) for one in output.outputs],
        "usage": {
            "prompt_tokens": len(output.prompt_token_ids),
            "completion_tokens": generated,
            "prompt_tokens_details": {"cached_tokens": output.cached_tokens or 0},
        },
        "timings": {
            "prefill_s": round(metrics.first_token - metrics.arrival, 6),
            "decode_tokens_per_s": round(rate, 3),
            "total_s": round(metrics.finished - metrics.arrival, 6),
            "draft_n": metrics.drafted,
            "draft_n_accepted": metrics.accepted,
        },
        "sampling": asdict(params),
    }


def _completion(one: CompletionOutput) -> dict[str, object]:
    report: dict[str, object] = {
        "index": one.index,
        "text": one.text,
        "reasoning": one.reasoning,
        "answer": one.answer,
        "token_ids": one.token_ids,
        "reasoning_tokens": one.reasoning_tokens,
        "finish_reason": one.finish_reason,
        "stop_reason": one.stop_reason,
    }
    if one.logprobs is not None:
        report["cumulative_logprob"] = one.cumulative_logprob
        report["logprobs"] = [
            [{"token_id": token, **asdict(entry)} for token, entry in alternatives.items()]
            for alternatives in one.logprobs
        ]
    return report
