"""Ollama's chats and completions: bodies read, answers and the lines of a stream written, models described.

Of `options` those count that say how tokens are chosen or where an answer ends; those about the machine have no effect,
since the server was told of it when it was started, and what is chosen by other rules than ours (mirostat, typical_p,
tfs_z) is refused unless it is switched off. `keep_alive` has no effect: models stay. An empty prompt or chat loads or
unloads a model at Ollama; here it is answered alike, and nothing happens. `think` as a level means a budget, as in
`EFFORTS`. `context`, the tokens of the turns before, is taken and given by completions.

Source: Ollama's API reference and the types of its client.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import torch

from sambay.config import MODEL_TYPE
from sambay.engine import LLM, RequestOutput, StreamEvent, StructuredOutputsParams
from sambay.errors import BodyError
from sambay.protocols.body import ChatBody, Fields, Json, read_effort
from sambay.protocols.openai import chat_logprobs, read_choice
from sambay.protocols.tools import Function, Part, TurnReader
from sambay.quant.stored import described_in
from sambay.tokenizer import Tokenizer

__all__ = [
    "CHAT",
    "GENERATE",
    "Lines",
    "OllamaBody",
    "describe_fully",
    "describe_listed",
    "describe_running",
    "error_body",
    "load_line",
    "read_chat",
    "read_generate",
]

CHAT, GENERATE = "/api/chat", "/api/generate"

_SAME = ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "stop")
"""Options that are fields of `SamplingParams`."""

_MACHINE = (
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "numa", "low_vram", "f16_kv", "logits_all",
    "vocab_only", "use_mmap", "use_mlock", "embedding_only", "repeat_last_n", "penalize_newline", "mirostat_tau",
    "mirostat_eta", "draft_num_predict",
)  # fmt: skip
"""Options without effect here."""

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}

_FOREVER = "9999-12-31T23:59:59Z"


@dataclass(frozen=True)
class OllamaBody(ChatBody):
    """A chat to be answered, or a prompt to be completed.

    Attributes:
        is_chat: which of the two.
        prompt: to be completed as it is, without the chat template; None for a chat, or a prompt in one.
        context: tokens before the prompt.
        keep: whether the model is to stay, in a request that only loads or unloads it.
    """

    is_chat: bool = True
    prompt: str | None = None
    context: Sequence[int] = ()
    keep: bool = True

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be answered."""
        return not self.messages and not self.prompt

    def prompts(self, tokenizer: Tokenizer) -> list[tuple[str | None, list[int]]]:
        """The prompt as text, None where there are tokens before it, and as tokens.

        Raises:
            PromptError: the messages are malformed, or the template refuses them.
        """
        if self.prompt is not None:
            found: list[tuple[str | None, list[int]]] = [(self.prompt, tokenizer.encode(self.prompt))]
        else:
            found = super().prompts(tokenizer)
        return [(None, [*self.context, *ids]) if self.context else (text, ids) for text, ids in found]


def read_chat(raw: object) -> OllamaBody:
    """Read what was sent to `CHAT`.

    Raises:
        BodyError: a field is missing, not known, of the wrong type, or cannot be done.
    """
    fields = Fields(raw)
    given = fields.take("messages", list, "a list of messages", [])
    messages = [_message(message, f"messages[{index}]") for index, message in enumerate(given)]
    functions = []
    for index, one in enumerate(fields.take("tools", list, "a list of tools", [])):
        function = one.get("function") if isinstance(one, Mapping) else None
        if not isinstance(function, Mapping):
            raise BodyError(f"tools[{index}] is {one!r:.99}: it must have the type function, and a function", "tools")
        functions.append(Function.read(function, f"tools[{index}]"))
    choice = fields.take("tool_choice", (str, Mapping), "none, auto, required, or a function", "auto")
    tools = read_choice(functions, choice, parallel=True, nested="function")
    sampling, template, common = _common(fields)
    if tools is not None:
        tools.hold(sampling)
    fields.refuse_the_rest()
    return OllamaBody(sampling, **common, messages=messages, template=template, tools=tools)


def read_generate(raw: object) -> OllamaBody:
    """Read what was sent to `GENERATE`.

    Raises:
        BodyError: as `read_chat`.
    """
    fields = Fields(raw)
    prompt = fields.take("prompt", str, "text", "")
    system = fields.take("system", str, "text")
    context = fields.take("context", list, "a list of token ids", [])
    as_it_is = fields.flag("raw")
    fields.only("suffix", [""], "text can only be continued at its end")
    fields.only("template", [""], "the model's own template is used: send the whole prompt with raw instead")
    for name in ("images", "width", "height", "steps"):
        fields.only(name, [None, []], "only text can be read and written")
    sampling, template, common = _common(fields)
    fields.refuse_the_rest()
    if as_it_is or not prompt:
        return OllamaBody(sampling, **common, is_chat=False, prompt=prompt, context=context)
    messages = [{"role": "system", "content": system}] if system and not context else []
    messages.append({"role": "user", "content": prompt})
    return OllamaBody(sampling, **common, is_chat=False, messages=messages, template=template, context=context)


def _common(fields: Fields) -> tuple[Json, Json, Json]:
    """Sampling, variables of the template, and the other fields that both kinds of body have."""
    sampling = _options(fields.take("options", Mapping, "an object", {}))
    structure = _format(fields)
    if structure is not None:
        sampling["structured_outputs"] = structure
    think = fields.take("think", (bool, str), "true, false, or one of low, medium, high")
    template = read_effort(think, "think", sampling) if isinstance(think, str) else {}
    if isinstance(think, bool):
        template["enable_thinking"] = think
    top = fields.take("top_logprobs", int, "an integer", 0)
    if fields.flag("logprobs") or top:
        sampling["logprobs"] = top
    kept = fields.any("keep_alive")
    common = {"model": fields.take("model", str, "the name of a model"), "stream": fields.flag("stream", True)}
    return sampling, template, common | {"keep": kept not in (0, "0", "0s", "0m", "0h")}


def _options(options: object) -> Json:
    """Fields of `SamplingParams`."""
    fields = Fields(options, _MACHINE, "options.")
    sampling = fields.given(_SAME)
    penalty = fields.take("repeat_penalty", (int, float), "a number above 0")
    if penalty is not None:
        sampling["repetition_penalty"] = penalty
    longest = fields.take("num_predict", int, "an integer")
    if longest is not None:
        sampling["max_tokens"] = longest if longest >= 0 else None
    budget = fields.take("max_thinking_tokens", int, "an integer")
    if budget is not None:
        sampling["max_thinking_tokens"] = budget
    for name, off in (("mirostat", [0]), ("typical_p", [1.0, 1, 0.0, 0]), ("tfs_z", [1.0, 1])):
        fields.only(name, off, f"it is not known here: leave it out, or at {off[0]:g}")
    fields.refuse_the_rest()
    return sampling


def _format(fields: Fields) -> StructuredOutputsParams | None:
    """What the answer must be."""
    asked = fields.take("format", (str, Mapping), "json, or a JSON schema")
    if not asked:
        return None
    if isinstance(asked, str):
        if asked != "json":
            raise BodyError(f"format is {asked!r:.99}: it must be json, or a JSON schema", "format")
        return StructuredOutputsParams(json_object=True)
    return StructuredOutputsParams(json=asked)


def _message(message: object, where: str) -> Json:
    """A message as OpenAI's chats have it: Ollama's name results by the function, if at all."""
    if not isinstance(message, Mapping):
        raise BodyError(f"{where} is {message!r:.99}: it must have a role and a content", "messages")
    if message.get("images"):
        raise BodyError(f"{where} has images: only text can be read", "messages")
    found = {"role": message.get("role"), "content": message.get("content") or ""}
    if message.get("tool_calls"):
        found["tool_calls"] = message["tool_calls"]
    if message.get("role") == "tool":
        found |= {"name": message.get("tool_name"), "tool_call_id": message.get("tool_call_id")}
    return found


class Lines:
    """The lines of a streamed answer, or all of it at once.

    Args:
        body: what was asked.
        model: the name to be given.
        tokenizer: of the model.
    """

    def __init__(self, body: OllamaBody, model: str, tokenizer: Tokenizer) -> None:
        self._body, self._model, self._tokenizer = body, model, tokenizer
        self._turn = TurnReader(body.tools)
        self._seen, self._calls = 0, 0
        self._pending: list[Json] = []

    def push(self, event: StreamEvent) -> list[Json]:
        """The lines of one token, often one, sometimes none."""
        found = event.output.outputs[event.index].logprobs
        if found is not None:
            top = self._body.sampling.get("logprobs") or 0
            self._pending += chat_logprobs([event.token_id], [found[self._seen]], self._tokenizer, top)
        self._seen += 1
        return [self._line(self._said([part])) for part in self._turn.push(event)]

    def end(self, output: RequestOutput) -> Json:
        """The last line.

        Args:
            output: finished, without an error.
        """
        return self._line(self._said([])) | self._done(output)

    def whole(self, lines: Sequence[Json], output: RequestOutput) -> Json:
        """The answer at once.

        Args:
            lines: all that `push` gave.
            output: finished, without an error.
        """
        said = [line["message"] if self._body.is_chat else line for line in lines]
        joined: Json = {} if not self._body.is_chat else {"role": "assistant"}
        text = "content" if self._body.is_chat else "response"
        joined[text] = "".join(one[text] for one in said)
        thinking = "".join(one.get("thinking", "") for one in said)
        joined |= {"thinking": thinking} if thinking else {}
        calls = [call for one in said for call in one.get("tool_calls", ())]
        joined |= {"tool_calls": calls} if calls else {}
        last = self.end(output)
        logprobs = [entry for line in [*lines, last] for entry in line.get("logprobs", ())]
        last |= {"logprobs": logprobs} if logprobs else {}
        return last | ({"message": joined} if self._body.is_chat else joined)

    def _said(self, parts: Sequence[Part]) -> Json:
        """Parts of the answer, as a message or as fields of the line."""
        text = "".join(part.text for part in parts if part.kind == "answer")
        said: Json = {"role": "assistant", "content": text} if self._body.is_chat else {"response": text}
        for part in parts:
            if part.kind == "reasoning":
                said["thinking"] = part.text
            elif part.kind == "call":
                function = {"index": self._calls, "name": part.name, "arguments": json.loads(part.text)}
                said["tool_calls"] = [{"id": f"call_{part.id}", "function": function}]
                self._calls += 1
        return {"message": said} if self._body.is_chat else said

    def _line(self, said: Json) -> Json:
        line = {"model": self._model, "created_at": _now(), **said, "done": False}
        if self._pending:
            line["logprobs"], self._pending = self._pending, []
        return line

    def _done(self, output: RequestOutput) -> Json:
        one, times = output.outputs[0], output.metrics
        first = times.first_token or times.finished
        done: Json = {
            "done": True, "done_reason": one.finish_reason,
            "total_duration": _ns(times.finished - times.arrival), "load_duration": 0,
            "prompt_eval_count": len(output.prompt_token_ids), "prompt_eval_duration": _ns(first - times.arrival),
            "eval_count": len(one.token_ids), "eval_duration": _ns(times.finished - first),
        }  # fmt: skip
        if not self._body.is_chat:
            done["context"] = [*output.prompt_token_ids, *one.token_ids]
        return done


def load_line(body: OllamaBody, model: str) -> Json:
    """The answer to a request that only loads or unloads the model."""
    said: Json = {"message": {"role": "assistant", "content": ""}} if body.is_chat else {"response": ""}
    reason = "load" if body.keep else "unload"
    return {"model": model, "created_at": _now(), **said, "done": True, "done_reason": reason}


def describe_listed(llm: LLM, name: str, created: float) -> Json:
    """A model, as the lists of models have it.

    Args:
        llm: the model.
        name: what it is called.
        created: when it was loaded, in seconds since 1970.
    """
    config = llm.model.config
    files = sorted(path for path in llm.directory.iterdir() if path.is_file())
    mark = hashlib.sha256()
    for path in files:  # names, sizes and beginnings: a model of gigabytes is not read for it
        with path.open("rb") as file:
            mark.update(f"{path.name} {path.stat().st_size} ".encode() + file.read(1 << 16))
    count, quantised = config.num_parameters(), described_in(llm.directory) or {}
    bits = quantised.get("bits", quantised.get("head_bits"))
    return {
        "name": name,
        "model": name,
        "modified_at": datetime.fromtimestamp(created, timezone.utc).isoformat(),
        "size": sum(path.stat().st_size for path in files),
        "digest": mark.hexdigest(),
        "details": {
            "parent_model": "",
            "format": "safetensors",
            "family": MODEL_TYPE,
            "families": [MODEL_TYPE],
            "parameter_size": f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M",
            "quantization_level": f"Q{bits}" if bits else _DTYPES[llm.model.matrix_dtype],
        },
    }


def describe_running(llm: LLM, name: str, created: float) -> Json:
    """A model, as the list of those in memory has it: it stays there."""
    found = describe_listed(llm, name, created)
    del found["modified_at"]
    return found | {"expires_at": _FOREVER, "size_vram": 0, "context_length": llm.max_model_len}


def describe_fully(llm: LLM, name: str, created: float) -> Json:
    """All that is said of one model."""
    found, config = describe_listed(llm, name, created), llm.model.config
    params = llm.get_default_sampling_params()
    architecture = {
        "context_length": llm.max_model_len, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.sliding_window": config.sliding_window, "vocab_size": config.vocab_size,
    }  # fmt: skip
    info = {"general.architecture": MODEL_TYPE, "general.parameter_count": config.num_parameters()}
    names = ("temperature", "top_p", "top_k", "min_p")
    return {
        "modelfile": f"FROM {name}",
        "parameters": "\n".join(f"{one} {getattr(params, one)}" for one in names),
        "template": llm.get_tokenizer().chat_template or "",
        "details": found["details"],
        "model_info": info | {f"{MODEL_TYPE}.{one}": value for one, value in architecture.items()},
        "capabilities": ["completion", "tools", "thinking"],
        "modified_at": found["modified_at"],
    }


def error_body(error: Exception, status: int) -> Json:
    """What went wrong, as Ollama's clients read it.

    Args:
        error: whose text is one sentence.
        status: the HTTP status that goes with it, which the body does not repeat.
    """
    return {"error": str(error)}


def _ns(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
