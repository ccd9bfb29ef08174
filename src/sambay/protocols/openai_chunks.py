"""The pieces of a streamed answer as OpenAI has them: joined they are what `protocols.openai` gives at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sambay.engine import Logprob, RequestOutput, StreamEvent
from sambay.protocols.body import Json
from sambay.protocols.openai import chat_logprobs, completion_logprobs, envelope, finish_reason, tool_call, usage
from sambay.protocols.tools import Part, Tools, TurnReader
from sambay.tokenizer import Tokenizer

__all__ = ["ChatChunks", "CompletionChunks"]


@dataclass
class _Choice:
    """How far one completion has been sent.

    Attributes:
        seen: tokens that events have come for.
        pending: those of them whose log-probabilities have not been sent.
        entries: the log-probabilities.
        place: characters of the tokens whose log-probabilities have been sent.
    """

    seen: int = 0
    pending: list[int] = field(default_factory=list)
    entries: list[Mapping[int, Logprob]] = field(default_factory=list)
    place: int = 0

    def note(self, event: StreamEvent) -> None:
        """Keep the log-probabilities of a token, which may give no text yet."""
        logprobs = event.output.outputs[event.index].logprobs
        if logprobs is not None:
            self.pending.append(event.token_id)
            self.entries.append(logprobs[self.seen])
        self.seen += 1


class _Chunks:
    """What both kinds have.

    Args:
        head: what every chunk begins with.
        include_usage: whether the last chunk says what was used.
    """

    def __init__(self, head: Json, include_usage: bool) -> None:
        self._head = head | ({"usage": None} if include_usage else {})
        self._include_usage = include_usage
        self._choices: dict[int, _Choice] = {}

    def _chunk(self, choice: Json) -> Json:
        return self._head | {"choices": [choice]}

    def end(self, outputs: Sequence[RequestOutput]) -> list[Json]:
        """The chunks after the last event.

        Args:
            outputs: of all prompts, finished.
        """
        return [self._head | {"choices": [], "usage": usage(outputs)}] if self._include_usage else []


class ChatChunks(_Chunks):
    """The chunks of a chat, thinking, answer and calls apart.

    A call comes in two chunks, once it is whole: its name, and then its arguments.

    Args:
        tokenizer: of the model.
        model: the name to be given.
        top_logprobs: how many alternatives for each token, if log-probabilities were asked for.
        include_usage: whether the last chunk says what was used.
        tools: what the model may call.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: str,
        *,
        top_logprobs: int = 0,
        include_usage: bool = False,
        tools: Tools | None = None,
    ) -> None:
        super().__init__(envelope("chatcmpl", "chat.completion.chunk", model), include_usage)
        self._tokenizer, self._top, self._tools = tokenizer, top_logprobs, tools
        self._turns: dict[int, TurnReader] = {}
        self._calls: dict[int, int] = {}

    def push(self, event: StreamEvent) -> list[Json]:
        """The chunks of an event, often one, sometimes none."""
        out: list[Json] = []
        choice = self._choices.get(event.index)
        if choice is None:
            choice = self._choices[event.index] = _Choice()
            self._turns[event.index], self._calls[event.index] = TurnReader(self._tools), 0
            out.append(self._delta(event.index, {"role": "assistant", "content": ""}))
        choice.note(event)
        turn = self._turns[event.index]
        for part in turn.push(event):
            if part.kind == "call":
                out += self._call(event.index, part, choice)
            else:
                name = "reasoning_content" if part.kind == "reasoning" else "content"
                out.append(self._delta(event.index, {name: part.text}, self._logprobs(choice)))
        if event.finish_reason:
            reason = finish_reason(event.finish_reason, called=turn.called)
            out.append(self._delta(event.index, {}, self._logprobs(choice), reason))
        return out

    def _call(self, index: int, part: Part, choice: _Choice) -> list[Json]:
        number = self._calls[index]
        self._calls[index] += 1
        begin = tool_call(part)
        begin["function"] = begin["function"] | {"arguments": ""}
        rest = {"index": number, "function": {"arguments": part.text}}
        return [
            self._delta(index, {"tool_calls": [{"index": number, **begin}]}, self._logprobs(choice)),
            self._delta(index, {"tool_calls": [rest]}),
        ]

    def _delta(self, index: int, delta: Json, logprobs: Json | None = None, finish: str | None = None) -> Json:
        return self._chunk({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})

    def _logprobs(self, choice: _Choice) -> Json | None:
        if not choice.pending:
            return None
        content = chat_logprobs(choice.pending, choice.entries, self._tokenizer, self._top)
        choice.pending, choice.entries = [], []
        return {"content": content}


class CompletionChunks(_Chunks):
    """The chunks of completed prompts: the choices are numbered as in `completion_response`.

    Args:
        tokenizer: of the model.
        model: the name to be given.
        n: completions of each prompt.
        echo: put the prompt before each text.
        include_usage: whether the last chunk says what was used.
    """

    def __init__(
        self, tokenizer: Tokenizer, model: str, *, n: int = 1, echo: bool = False, include_usage: bool = False
    ) -> None:
        super().__init__(envelope("cmpl", "text_completion", model), include_usage)
        self._tokenizer, self._n, self._echo = tokenizer, n, echo

    def push(self, prompt: int, event: StreamEvent) -> list[Json]:
        """The chunks of an event, one or none.

        Args:
            prompt: which of the prompts it belongs to.
            event: the event.
        """
        index = prompt * self._n + event.index
        text = event.text
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
            if self._echo:
                output = event.output
                text = (output.prompt or self._tokenizer.decode(output.prompt_token_ids)) + text
        choice.note(event)
        if not text and not event.finish_reason:
            return []
        return [
            self._chunk(
                {
                    "index": index,
                    "text": text,
                    "logprobs": self._logprobs(choice),
                    "finish_reason": event.finish_reason,
                }
            )
        ]

    def _logprobs(self, choice: _Choice) -> Json | None:
        if not choice.pending:
            return None
        found = completion_logprobs(choice.pending, choice.entries, self._tokenizer, choice.place)
        choice.place += sum(map(len, found["tokens"]))
        choice.pending, choice.entries = [], []
        return found
