"""`sambay chat`: the loop that reads what a person types and streams what the model says."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sambay.cli import options
from sambay.cli.chat_commands import run_command
from sambay.cli.console import ReplyPrinter, Screen
from sambay.cli.conversation import Conversation, Exchange
from sambay.cli.failures import explain, print_error
from sambay.cli.interrupt import deferred_interrupt
from sambay.errors import PromptError, SambaYError

if TYPE_CHECKING:
    from pathlib import Path

    from sambay.engine import LLM, RequestOutput, SamplingParams
    from sambay.tokenizer import Tokenizer

__all__ = ["EXAMPLES", "Chat", "chat"]

EXAMPLES = """Examples:

sambay chat

sambay chat ./checkpoint --system "Answer in one sentence." --temperature 0.6

printf 'What is 12 * 12?\\nAnd halved?\\n' | sambay chat

Within it: /help lists the commands, Ctrl-C stops a reply, Ctrl-D leaves.
"""


def chat(
    model: options.Model = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    max_thinking_tokens: options.MaxThinkingTokens = None,
    no_thinking: options.NoThinking = False,
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
    """Talk with a model.

    Earlier answers are remembered, without their thinking. In a pipe each line is a turn.
    """
    given = options.check_sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        max_thinking_tokens=max_thinking_tokens,
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
        max_num_seqs=1,
    )
    params = llm.get_default_sampling_params(**given)
    Chat(llm, params, system=system, thinking=not no_thinking, show_thinking=not hide_thinking).loop()


@dataclass
class Totals:
    """What was generated in a chat so far."""

    replies: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Chat:
    """One chat at the terminal, or in a pipe.

    Replies go to standard output, all else to standard error.

    Args:
        llm: the model; it must have a chat template.
        params: how to generate; `/set` changes it.
        system: the system message, if there is one.
        thinking: whether the model may think before it answers.
        show_thinking: print what the model thinks.

    Raises:
        PromptError: there is no chat template.
    """

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        *,
        system: str | None = None,
        thinking: bool = True,
        show_thinking: bool = True,
    ) -> None:
        if llm.tokenizer is None or not llm.tokenizer.has_chat_template:
            raise PromptError(f"{llm.directory} has no chat template: use sambay generate --raw or --ids instead")
        self.llm, self.params, self.show_thinking = llm, params, show_thinking
        self.tokenizer: Tokenizer = llm.tokenizer
        self.template: dict[str, Any] = {} if thinking else {"enable_thinking": False}
        """What the chat template is told besides the messages."""
        self.conversation = Conversation(system)
        self.totals = Totals()
        self.saved: set[Path] = set()
        self.screen, self.notes = Screen(sys.stdout), Screen(sys.stderr)
        self._interactive = sys.stdin.isatty()

    def loop(self) -> None:
        """Read and answer until the end of the input or `/exit`."""
        if self._interactive:
            with contextlib.suppress(ImportError):  # not on every platform; with it input() has a history
                import readline  # noqa: F401
            self.notes.note(f"{self.llm.directory.name}: /help lists commands, Ctrl-D leaves")
        while True:
            try:
                text = self._read()
            except EOFError:
                if self._interactive:
                    self.notes.write("\n")
                return
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                self.notes.write("\n")
                self.notes.note("(Ctrl-D or /exit leaves)")
                continue
            if not self._answered(text):
                return

    def _answered(self, text: str) -> bool:
        """Do what was typed; False when it ends the chat."""
        try:
            if text.startswith("/"):
                return run_command(self, text)
            if text.strip():
                self.say(text)
        except BrokenPipeError:
            raise
        except (SambaYError, OSError) as error:
            self.screen.end_line()
            print_error(explain(error)[0])
        except KeyboardInterrupt:
            # The second one of a reply, or one before it began: neither is meant to end the chat.
            if not self._interactive:
                raise
        return True

    def say(self, text: str) -> None:
        """Take the user's turn and answer it; a turn that was not begun to be answered leaves no trace.

        Raises:
            SambaYError: it cannot be run, such as one longer than the context.
        """
        exchange = Exchange(text)
        self.conversation.exchanges.append(exchange)
        try:
            self.reply()
        finally:
            if exchange.answer is None:
                self.conversation.undo()

    def reply(self) -> None:
        """Answer the last exchange, streaming; Ctrl-C ends the answer and keeps what was said.

        Raises:
            SambaYError: the prompt cannot be run; the exchange is as it was then.
        """
        first, output = self._begin()
        exchange = self.conversation.exchanges[-1]
        if first > self.conversation.first:
            dropped = first - self.conversation.first
            self.conversation.first = first
            self.notes.note(f"(the conversation no longer fits the context: {dropped} oldest turn(s) dropped)")
        printer = ReplyPrinter(self.screen, hide_thinking=not self.show_thinking)
        completion, engine = output.outputs[0], self.llm.engine
        try:
            with deferred_interrupt() as interrupt:
                while not output.finished and not interrupt.requested:
                    for event in engine.step():
                        printer.push(event)
        finally:
            engine.abort(output.request_id)
            exchange.answer, exchange.reasoning = completion.answer, completion.reasoning
            self.screen.end_line()
        if output.error is not None:
            raise output.error
        self._account(output)

    def count(self, first: int | None = None) -> int:
        """Tokens of the conversation as the model is given it, from an exchange on."""
        return len(self.tokenizer.encode_chat(self.conversation.messages(first), **self.template))

    def _begin(self) -> tuple[int, RequestOutput]:
        """Queue the conversation, without its oldest exchanges where it does not fit."""
        conversation, room = self.conversation, self.llm.max_model_len
        # A quarter of the context is for the answer, unless answers are set to be shorter.
        reserve = min(self.params.max_tokens or room, room // 4)
        first, last = conversation.first, len(conversation.exchanges) - 1
        while first < last and self.count(first) + reserve > room:
            first += 1
        messages = conversation.messages(first)
        text = self.tokenizer.render_chat(messages, **self.template)
        ids = self.tokenizer.encode_chat(messages, **self.template)
        return first, self.llm.engine.add(text, ids, self.params)

    def _account(self, output: RequestOutput) -> None:
        """Add to the totals, and say in a line how it went."""
        completion, metrics = output.outputs[0], output.metrics
        tokens, now = len(completion.token_ids), time.perf_counter()
        self.totals.replies += 1
        self.totals.tokens += tokens
        self.totals.seconds += now - metrics.arrival
        parts = [f"{tokens} tokens"]
        if tokens:
            decoding = now - metrics.first_token
            if tokens > 1 and decoding > 0:
                parts.append(f"{(tokens - 1) / decoding:.1f} tokens/s")
            parts.append(f"first after {metrics.first_token - metrics.arrival:.2f} s")
        if completion.finish_reason == "abort":
            parts.append("stopped; what was said is kept")
        elif completion.finish_reason == "length":
            full = len(output.prompt_token_ids) + tokens >= self.llm.max_model_len
            parts.append("cut: the context is full" if full else "cut at max_tokens")
        self.notes.note(f"[{', '.join(parts)}]")

    def _read(self) -> str:
        '''What the user says next: a line, lines joined by a trailing backslash, or those between """.'''
        line = self._read_line("> ")
        if line.startswith('"""'):
            text, prompt = line[3:], "... "
            with contextlib.suppress(EOFError):
                while not text.rstrip().endswith('"""'):
                    text += "\n" + self._read_line(prompt)
                text = text.rstrip()[:-3]
            return text.strip("\n")
        with contextlib.suppress(EOFError):
            while line.endswith("\\"):
                line = line[:-1] + "\n"
                line += self._read_line("... ")
        return line

    def _read_line(self, prompt: str) -> str:
        if self._interactive:
            return input(prompt if self.screen.is_terminal else "")
        line = options.read_text(sys.stdin.readline)
        if not line:
            raise EOFError
        return line.rstrip("\r\n")
