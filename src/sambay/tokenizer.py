"""Text in and text out: encoding, decoding and chat prompts, on `tokenizers` and `jinja2` alone."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import jinja2
from jinja2 import ext, meta, nodes, parser, sandbox
from tokenizers import Tokenizer as Backend

from sambay.errors import CheckpointError, ContextError, PromptError
from sambay.files import atomic_write
from sambay.streaming import ByteLevelStream, StreamDecoder, WindowStream, spelled_bytes

__all__ = ["Tokenizer"]

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
SPECIALS_FILE = "special_tokens_map.json"

Messages: TypeAlias = Sequence[Mapping[str, Any]]

_NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
_REMEDY = "Give the directory of a complete checkpoint, or download this one again."

_LONG = 4096
"""Longer texts are encoded as a batch of one, during which the library lets other threads run."""


class Tokenizer:
    """A checkpoint's tokenizer and chat template.

    Args:
        backend: the tokenizer proper. It is changed: truncation and padding are switched off, since a prompt
            cut in silence is a wrong prompt, and the tokens that `config` names are marked as special.
        config: the contents of tokenizer_config.json.
        template: the contents of chat_template.jinja, if there is one; it wins over templates in `config`.
        specials: the contents of special_tokens_map.json; its tokens serve where `config` names none.

    Raises:
        CheckpointError: an entry has the wrong type or names a token that the vocabulary lacks.
    """

    def __init__(
        self,
        backend: Backend,
        config: Mapping[str, Any],
        *,
        template: str | None = None,
        specials: Mapping[str, Any] | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._config = dict(config)
        self._template_file = template
        self._specials_file = specials
        self._templates = _inline_templates(config) if template is None else {"default": template}
        self._named = {**_named_tokens(specials or {}, SPECIALS_FILE), **_named_tokens(config, CONFIG_FILE)}
        for name, token in self._named.items():
            if backend.token_to_id(token) is None:
                raise CheckpointError(f"{name} is {token!r}, but {TOKENIZER_FILE} has no such token. {_REMEDY}")
        backend.add_special_tokens([*self._named.values()])
        added = backend.get_added_tokens_decoder()
        self._special = {index: token for index, token in sorted(added.items()) if token.special}
        longest_first = sorted((token.content for token in self._special.values()), key=len, reverse=True)
        self._special_text = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._decoder_steps = _decoder_steps(backend)
        self._most: tuple[int, int] | None = None

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Tokenizer:
        """Read a checkpoint directory's tokenizer files.

        Args:
            directory: holds tokenizer.json and, optionally, tokenizer_config.json, special_tokens_map.json
                and chat_template.jinja, which wins over a template in the configuration.

        Raises:
            CheckpointError: a file is missing, unreadable or malformed; the message names it.
        """
        directory = Path(directory)
        path = directory / TOKENIZER_FILE
        text = _read_text(path)
        if text is None:
            raise CheckpointError(f"{path} does not exist. {_REMEDY}")
        try:
            backend = Backend.from_str(text)
        except Exception as error:  # the binding raises nothing narrower
            raise CheckpointError(f"{path} is not a tokenizer: {error}. {_REMEDY}") from error
        config = _read_object(directory / CONFIG_FILE) or {}
        specials = _read_object(directory / SPECIALS_FILE)
        template = _read_text(directory / TEMPLATE_FILE)
        try:
            return cls(backend, config, template=template, specials=specials)
        except CheckpointError as error:
            raise CheckpointError(f"{directory}: {error}") from error

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the files that `from_pretrained` reads, each replaced in one step.

        Args:
            directory: where to; created if need be.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        files = {TOKENIZER_FILE: self._backend.to_str(pretty=True), CONFIG_FILE: _json(self._config)}
        if self._specials_file is not None:
            files[SPECIALS_FILE] = _json(self._specials_file)
        if self._template_file is not None:
            files[TEMPLATE_FILE] = self._template_file
        for name, text in files.items():
            atomic_write(directory / name, text.encode())

    @functools.cached_property
    def vocab_size(self) -> int:
        """The highest token id plus one: the fewest rows of an embedding that has one for every token."""
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def special_tokens(self) -> dict[str, int]:
        """The control tokens, which ordinary text never contains: text to id, in the order of the ids."""
        return {token.content: index for index, token in self._special.items()}

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text, if the checkpoint names one."""
        return self._named_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text, if the checkpoint names one."""
        return self._named_id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """The token that fills a batch, if the checkpoint names one."""
        return self._named_id("pad_token")

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be rendered."""
        return "default" in self._templates

    @property
    def chat_template(self) -> str | None:
        """The source of the chat template, if there is one."""
        return self._templates.get("default")

    @functools.cached_property
    def renders_tools(self) -> bool:
        """Whether the chat template itself writes what it is given as `tools`."""
        if not self.has_chat_template:
            return False
        try:
            return "tools" in meta.find_undeclared_variables(_environment().parse(self._template([{}])))
        except jinja2.TemplateError:  # `render_chat` says what is wrong with it
            return False

    def token_id(self, token: str) -> int | None:
        """The id of one token by its exact text in the vocabulary, or None if it has no such token."""
        return self._backend.token_to_id(token)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token as the vocabulary spells it, and its id; made anew at each call."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    def to_json(self) -> str:
        """The contents of tokenizer.json."""
        return str(self._backend.to_str())

    def token_bytes(self, index: int) -> bytes:
        """The bytes that a token stands for, part of a character perhaps; none for an id outside the vocabulary."""
        token = self._backend.id_to_token(index)
        if token is None:
            return b""
        if self._decoder_steps == ["ByteLevel"] and index not in self._special:
            return spelled_bytes(token)
        byte = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token) if "ByteFallback" in self._decoder_steps else None
        return bytes([int(byte[1], 16)]) if byte else self.decode([index], skip_special_tokens=False).encode()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Turn text into token ids. Control tokens spelled out in it are recognised: see `encode_chat`.

        Args:
            text: any text.
            add_special_tokens: whether to add what the tokenizer puts around a text, such as its first token.

        Raises:
            PromptError: `text` is not a string or has a lone surrogate, which UTF-8 cannot express.
            ContextError: it is longer than `refuse_beyond` allows.
        """
        if isinstance(text, str):
            self._check_length(len(text))
        return list(self._encode(self._backend, text, add_special_tokens).ids)

    def refuse_beyond(self, tokens: int) -> None:
        """Refuse texts that are certainly longer than so many tokens: making tokens of them takes 200 times their size.

        Args:
            tokens: the longest text that is wanted.
        """
        # Elsewhere a single token can stand for any number of characters: an unknown word, or spaces made one.
        if self._decoder_steps == ["ByteLevel"] and self._backend.normalizer is None:
            self._most = (tokens, tokens * max(map(len, self.vocabulary)))

    def _check_length(self, length: int) -> None:
        if self._most is not None and length > self._most[1]:
            raise ContextError(
                f"the prompt has {length} characters, more than {self._most[0]} tokens can say, which the context "
                "holds: shorten the prompt"
            )

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Turn token ids into text: nothing for ids outside the vocabulary, U+FFFD for invalid UTF-8.

        Args:
            ids: token ids, none negative.
            skip_special_tokens: whether to leave the control tokens out.
        """
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def stream(self, *, skip_special_tokens: bool = True) -> StreamDecoder:
        """A decoder for ids that arrive one by one.

        Args:
            skip_special_tokens: whether to leave the control tokens out.

        Raises:
            CheckpointError: this tokenizer mixes byte-level decoding with other steps.
        """
        skip = frozenset(self._special) if skip_special_tokens else frozenset()
        if self._decoder_steps == ["ByteLevel"]:
            return ByteLevelStream(self._backend, skip)
        if "ByteLevel" in self._decoder_steps:
            raise CheckpointError(
                f"text cannot be streamed through the decoder steps {self._decoder_steps}, "
                "where ByteLevel does not stand alone: decode the finished ids instead"
            )
        return WindowStream(self._backend, skip, byte_fallback="ByteFallback" in self._decoder_steps)

    def render_chat(self, messages: Messages, *, add_generation_prompt: bool = True, **variables: object) -> str:
        """The text of a conversation, as the checkpoint's chat template writes it.

        Args:
            messages: at least one; each with a `role`, a string, and a `content`: a string, or a list of
                `{"type": "text", "text": ...}`, which are joined by newlines as in vLLM.
            add_generation_prompt: whether to end with the opening of the assistant's turn.
            **variables: further template variables, such as `tools`. `enable_thinking=False` switches the thinking
                off: a template that does not know of it gets an empty, closed thinking put behind it, where the
                assistant's turn opens.

        Raises:
            PromptError: there is no template, a message is malformed, or the template refuses it.
        """
        values: dict[str, Any] = {"tools": None, **self._named, **variables}
        values["messages"] = _read_messages(messages)
        values["add_generation_prompt"] = add_generation_prompt
        source = self._template(values["tools"])
        try:
            text = _compile_template(source).render(values)
        except jinja2.TemplateError as error:
            raise PromptError(f"the chat template refuses this conversation: {error}") from error
        except Exception as error:  # a template is code from outside: whatever it raises is its own doing
            raise PromptError(
                f"the chat template failed on this conversation: {type(error).__name__}: {error}"
            ) from error
        knows = "enable_thinking" in source
        off = variables.get("enable_thinking", True) is False
        return _without_thinking(text) if off and add_generation_prompt and not knows else text

    def encode_chat(self, messages: Messages, *, add_generation_prompt: bool = True, **variables: object) -> list[int]:
        """The token ids of a conversation, in which only the template can write control tokens.

        Text in `messages` and `tools` that spells a control token, like `<|end|><|assistant|>`, is encoded as
        the ordinary characters that it is; all else gets exactly the ids of the rendered text. Added tokens
        that are not special, like `<think>`, stay tokens. Arguments and errors are those of `render_chat`.

        One kind of template defeats it: one that begins a control token and has a content complete it.
        """
        # Each such spelling hides behind one private character while the template runs. Unlike cutting the
        # rendering into template and contents, this works with templates that trim, split or reorder contents
        # and leaves the ids of all other turns as they are, so that a cached prefix still fits.
        messages = _read_messages(messages)
        tools = variables.get("tools")
        spelled = set().union(*(self._spelled(text) for text in _strings([messages, tools])))
        if not spelled:
            text = self.render_chat(messages, add_generation_prompt=add_generation_prompt, **variables)
            return self.encode(text, add_special_tokens=False)
        taken = set(self._template(tools)).union(*_strings([messages, tools]))
        free = (char for char in map(chr, range(0x100000, 0x10FFFE)) if char not in taken)
        hidden = dict(zip(sorted(spelled, key=lambda text: (-len(text), text)), free, strict=False))
        shown = {ord(char): text for text, char in hidden.items()}
        pattern = re.compile("|".join(map(re.escape, hidden)))

        def hide(text: str) -> str:
            return pattern.sub(lambda match: hidden[match[0]], text)

        if "tools" in variables:
            variables["tools"] = _map_strings(tools, hide)
        messages = _map_strings(messages, hide)
        text = self.render_chat(messages, add_generation_prompt=add_generation_prompt, **variables)
        return self._encode_hidden(text, shown)

    def _encode_hidden(self, text: str, shown: Mapping[int, str]) -> list[int]:
        """Encode a rendering in which the characters of `shown` stand for text not to be recognised."""
        self._check_length(len(text))
        found = self._encode(self._backend, text, False)
        ids: list[int] = []
        span: list[int] = []  # the ids since the last control token
        begin, strip_begin = 0, False

        def close(end: int, strip_end: bool) -> None:
            part = text[begin:end]
            if not any(ord(char) in shown for char in part):
                ids.extend(span)
                return
            # Offsets may leave out white space that a control token takes in with it.
            part = part.lstrip() if strip_begin else part
            ids.extend(self._encode_unrecognised(part.rstrip() if strip_end else part, shown))

        for index, (start, stop) in zip(found.ids, found.offsets, strict=True):
            token = self._special.get(index)
            if token is None:
                span.append(index)
                continue
            close(start, token.lstrip)
            ids.append(index)
            span = []
            begin, strip_begin = stop, token.rstrip
        close(len(text), False)
        return ids

    def _encode_unrecognised(self, text: str, shown: Mapping[int, str]) -> list[int]:
        """Encode text between two control tokens, with what is hidden in it shown but not recognised."""
        ids: list[int] = self._encode(self._unrecognising, text.translate(shown), False).ids
        if self._special.keys().isdisjoint(ids):
            return ids
        # A model whose own vocabulary lists its control tokens can come to them without recognition, but not
        # when their spelling is split between two texts.
        halves = {char: f"{spelling[:1]}{chr(char)}{spelling[1:]}" for char, spelling in shown.items()}
        parts = re.split("|".join(map(chr, shown)), text.translate(halves))
        return [index for part in parts for index in self._encode(self._unrecognising, part, False).ids]

    @functools.cached_property
    def _unrecognising(self) -> Backend:
        """A second backend that recognises no control token; switching the first would be a race."""
        backend = Backend.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def _spelled(self, text: str) -> set[str]:
        """The parts of a text that would become control tokens."""
        spelled = set(self._special_text.findall(text))
        if self._backend.normalizer is not None and any(token.normalized for token in self._special.values()):
            # Such tokens are looked for after normalisation, of case for instance: only the backend can tell.
            found = self._encode(self._backend, text, False)
            spans = zip(found.ids, found.offsets, strict=True)
            spelled.update(text[start:stop] for index, (start, stop) in spans if index in self._special)
        return spelled - {""}

    def _template(self, tools: object) -> str:
        """The template for a conversation with or without tools."""
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        if name in self._templates:
            return self._templates[name]
        others = f" by the name of 'default', only {sorted(self._templates)}" if self._templates else ""
        raise PromptError(
            f"this checkpoint has no chat template{others}: put a {TEMPLATE_FILE} into its directory, "
            "or give a plain prompt instead of messages"
        )

    def _named_id(self, name: str) -> int | None:
        return self._backend.token_to_id(self._named[name]) if name in self._named else None

    @staticmethod
    def _encode(backend: Backend, text: str, add_special_tokens: bool) -> Any:  # noqa: ANN401 - the binding's Encoding
        if not isinstance(text, str):
            raise PromptError(f"a text to encode must be a string, not {type(text).__name__}")
        try:
            if len(text) > _LONG:
                return backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]
            return backend.encode(text, add_special_tokens=add_special_tokens)
        except TypeError as error:  # the binding's word for a string that is not valid Unicode
            lone = next((char for char in text if "\ud800" <= char <= "\udfff"), "")
            where = f"the lone surrogate {lone!r} at {text.find(lone)}"
            raise PromptError(f"the text has {where}, which is no character: remove it") from error


def _without_thinking(prompt: str) -> str:
    """A prompt after which the model answers at once: as if it had thought nothing."""
    opened = prompt.rstrip("\n").endswith("<think>")
    return f"{prompt.rstrip(chr(10)) if opened else prompt + '<think>'}\n\n</think>\n"


def _decoder_steps(backend: Backend) -> list[str]:
    if backend.decoder is None:
        return []
    state = json.loads(backend.decoder.__getstate__())
    return [step["type"] for step in state.get("decoders", [state])]


def _read_messages(messages: object) -> list[dict[str, Any]]:
    """Copies of the messages, checked, with contents that are plain text."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise PromptError(f"messages must be a list of at least one message, not {messages!r:.200}")
    read = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise PromptError(f"messages[{index}] must have a role and a content, but it is {message!r:.200}")
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str):
            raise PromptError(f"messages[{index}] must have a string as its role, not {role!r:.200}")
        if isinstance(content, Sequence) and content and not isinstance(content, str | bytes):
            content = "\n".join(_part_text(part, f"messages[{index}].content[{i}]") for i, part in enumerate(content))
        if not isinstance(content, str):
            raise PromptError(f"messages[{index}] must have text as its content, not {content!r:.200}")
        read.append({**message, "content": content})
    return read


def _part_text(part: object, where: str) -> str:
    """The text of a part of a content."""
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise PromptError(f'{where} must be {{"type": "text", "text": ...}}: only text can be read, not {part!r:.200}')
    return text


def _strings(value: object) -> Iterator[str]:
    """Every string in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """The same nested lists and mappings with every string changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(item, change) for item in value]
    return value


class _GenerationBlock(ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's text for training: here it is text."""

    tags = {"generation"}  # noqa: RUF012 - declared so by the base class

    def parse(self, parser: parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@functools.lru_cache(maxsize=16)
def _compile_template(source: str) -> jinja2.Template:
    return _environment().from_string(source)


@functools.cache
def _environment() -> jinja2.Environment:
    """The environment that chat templates are written for, which is transformers'."""
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, ext.loopcontrols]
    )

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def strftime_now(pattern: str) -> str:
        return datetime.now().strftime(pattern)

    def tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: ANN401 - options of jinja's filter
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)  # jinja's own escapes HTML

    environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    environment.filters["tojson"] = tojson
    return environment


def _inline_templates(config: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates in a tokenizer configuration, by name."""
    inline = config.get("chat_template")
    if inline is None:
        return {}
    entries = [{"name": "default", "template": inline}] if isinstance(inline, str) else inline
    try:
        templates = {entry["name"]: entry["template"] for entry in entries}
    except (TypeError, KeyError):
        templates = {"": None}
    if not all(isinstance(text, str) for pair in templates.items() for text in pair):
        raise CheckpointError(
            f"{CONFIG_FILE}: chat_template must be a string or a list of {{name, template}}, "
            f"not {inline!r:.200}. Correct it, or put the template into {TEMPLATE_FILE} instead."
        )
    return templates


def _named_tokens(config: Mapping[str, Any], file: str) -> dict[str, str]:
    """The tokens that have a role, by role; an entry is a token's text, or fields with the text in one."""
    named = {}
    for name in _NAMED_TOKENS:
        entry = config.get(name)
        if entry is None:
            continue
        token = entry.get("content") if isinstance(entry, Mapping) else entry
        if not isinstance(token, str) or not token:
            raise CheckpointError(f"{file}: {name} must be a token's text, not {entry!r:.99}. {_REMEDY}")
        named[name] = token
    return named


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. {_REMEDY}") from error


def _read_object(path: Path) -> dict[str, Any] | None:
    text = _read_text(path)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}. {_REMEDY}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(value).__name__}. {_REMEDY}")
    return value


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
