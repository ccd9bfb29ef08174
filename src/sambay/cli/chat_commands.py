"""The slash commands of a chat: one function each, in a table that `/help` prints."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sambay.cli.options import writable
from sambay.errors import SambaYError, SamplingError

if TYPE_CHECKING:
    from sambay.cli.chat import Chat

__all__ = ["run_command"]

_ADJUSTABLE = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": int,
    "max_tokens": int,
    "max_thinking_tokens": int,
    "stop": str,
}
_OPTIONAL = ("seed", "max_tokens", "max_thinking_tokens", "stop")


class Command(NamedTuple):
    """A command: what it does with what follows its name, and how `/help` describes it."""

    run: Callable[[Chat, str], None]
    usage: str
    help: str


def run_command(chat: Chat, line: str) -> bool:
    """Run a line that begins with a slash.

    Args:
        chat: the chat that it is typed in.
        line: as typed.

    Returns:
        False when the chat is to end.

    Raises:
        SambaYError: the command is unknown, or its argument impossible.
    """
    name, _, argument = line[1:].partition(" ")
    name = _ALIASES.get(name.lower(), name.lower())
    if name == "exit":
        return False
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, [*COMMANDS, *_ALIASES, "exit"], n=2)
        hint = f"did you mean {' or '.join(f'/{one}' for one in close)}? " if close else ""
        raise SambaYError(
            f"there is no command /{name}: {hint}/help lists them; begin with a space to say it to the model"
        )
    COMMANDS[name].run(chat, argument.strip())
    return True


def _help(chat: Chat, argument: str) -> None:
    lines = [(command.usage, command.help) for command in COMMANDS.values()]
    lines.append(("/exit, /quit", "leave (so does Ctrl-D)"))
    width = max(len(usage) for usage, _ in lines)
    for usage, text in lines:
        chat.notes.note(f"{usage:{width}}  {text}")
    chat.notes.note('A \\ at the end of a line continues it; """ begins and ends several lines.')


def _clear(chat: Chat, argument: str) -> None:
    chat.conversation.clear()
    chat.notes.note("(a new conversation)")


def _system(chat: Chat, argument: str) -> None:
    if argument:
        chat.conversation.system = None if argument.lower() == "off" else argument
    chat.notes.note(f"system message: {chat.conversation.system or '(none)'}")


def _set(chat: Chat, argument: str) -> None:
    name, text = [*re.split(r"\s*=\s*|\s+", argument, maxsplit=1), ""][:2]
    name = name.replace("-", "_").lower()
    if name and name not in _ADJUSTABLE:
        close = difflib.get_close_matches(name, _ADJUSTABLE, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise SamplingError(f"there is no setting {name!r}: {hint}the settings are {', '.join(_ADJUSTABLE)}")
    if text:
        change: dict[str, Any] = {name: _parse(name, text)}
        chat.params = dataclasses.replace(chat.params, **change)
    for shown in [name] if name else _ADJUSTABLE:
        chat.notes.note(f"{shown} = {_display(getattr(chat.params, shown))}")


def _parse(name: str, text: str) -> float | int | str | None:
    if text.lower() == "none" and name in _OPTIONAL:
        return None
    kind: type[float] | type[int] | type[str] = _ADJUSTABLE[name]
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        also = " or none" if name in _OPTIONAL else ""
        raise SamplingError(f"{name} is {text!r}: it must be {what}{also}") from None


def _display(value: object) -> str:
    return "none" if value is None else repr(value) if isinstance(value, str) else str(value)


def _think(chat: Chat, argument: str) -> None:
    choices = {"": chat.show_thinking, "on": True, "show": True, "off": False, "hide": False}
    if argument.lower() not in choices:
        raise SambaYError(f"/think {argument}: say on or off")
    chat.show_thinking = choices[argument.lower()]
    chat.notes.note(f"(thinking is {'shown' if chat.show_thinking else 'hidden'})")


def _save(chat: Chat, argument: str) -> None:
    if not argument:
        raise SambaYError("/save needs a file name, such as chat.md or chat.json")
    path = writable(Path(argument).expanduser())
    if path.exists() and path.resolve() not in chat.saved:
        raise SambaYError(f"{path} exists already: choose another name")
    chat.conversation.save(path, str(chat.llm.directory))
    chat.saved.add(path.resolve())
    chat.notes.note(f"(saved to {path})")


def _retry(chat: Chat, argument: str) -> None:
    if not chat.conversation.exchanges:
        raise SambaYError("there is nothing to answer again yet")
    if chat.params.temperature == 0 or chat.params.seed is not None:
        chat.notes.note("(with temperature 0 or a seed the answer will be the same)")
    exchange = chat.conversation.exchanges[-1]
    before = dataclasses.replace(exchange)
    exchange.answer, exchange.reasoning = None, ""
    try:
        chat.reply()
    except SambaYError:
        exchange.answer, exchange.reasoning = before.answer, before.reasoning
        raise


def _undo(chat: Chat, argument: str) -> None:
    removed = chat.conversation.undo()
    if removed is None:
        raise SambaYError("there is nothing to undo")
    first_line = removed.question.splitlines()[0] if removed.question.strip() else ""
    chat.notes.note(f"(removed: {first_line:.60})")


def _tokens(chat: Chat, argument: str) -> None:
    conversation, totals = chat.conversation, chat.totals
    used = chat.count() if conversation.messages() else 0
    left_out = f", {conversation.first} oldest turn(s) left out" if conversation.first else ""
    chat.notes.note(f"conversation: {used} of {chat.llm.max_model_len} tokens{left_out}")
    rate = f", {totals.tokens / totals.seconds:.1f} tokens/s with prompts" if totals.seconds else ""
    chat.notes.note(f"generated: {totals.tokens} tokens in {totals.replies} replies{rate}")


COMMANDS = {
    "help": Command(_help, "/help", "this list"),
    "clear": Command(_clear, "/clear, /new", "begin a new conversation"),
    "system": Command(_system, "/system [TEXT|off]", "show, set or remove the system message"),
    "set": Command(_set, "/set [NAME [VALUE]]", "show or change a sampling setting, such as temperature 0.7"),
    "think": Command(_think, "/think [on|off]", "show or hide what the model thinks"),
    "save": Command(_save, "/save FILE", "write the conversation, as JSON or Markdown by the suffix"),
    "retry": Command(_retry, "/retry", "answer the last question again"),
    "undo": Command(_undo, "/undo", "take back the last question and its answer"),
    "tokens": Command(_tokens, "/tokens", "how full the context is, and how fast it goes"),
}
_ALIASES = {"new": "clear", "quit": "exit", "?": "help", "h": "help"}
