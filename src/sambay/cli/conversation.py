"""What a chat remembers: exchanges, which of them the model still sees, and how they are written to a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from sambay.files import atomic_write

__all__ = ["Conversation", "Exchange"]


@dataclass
class Exchange:
    """A question and its answer.

    Attributes:
        question: what the user said.
        answer: what the model said, None while it has not.
        reasoning: what it thought; never shown to it again.
    """

    question: str
    answer: str | None = None
    reasoning: str = ""


@dataclass
class Conversation:
    """All exchanges of a chat.

    Attributes:
        system: the system message, if there is one.
        exchanges: in order.
        first: the first exchange that the model still sees; those before did not fit its context.
    """

    system: str | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    first: int = 0

    def messages(self, first: int | None = None) -> list[dict[str, str]]:
        """What the model is given: earlier answers without their thinking.

        Args:
            first: the exchange to begin with; None begins with the first that still fits.
        """
        out = [] if self.system is None else [{"role": "system", "content": self.system}]
        for exchange in self.exchanges[self.first if first is None else first :]:
            out.append({"role": "user", "content": exchange.question})
            if exchange.answer is not None:
                out.append({"role": "assistant", "content": exchange.answer})
        return out

    def clear(self) -> None:
        """Forget all exchanges; the system message stays."""
        self.exchanges, self.first = [], 0

    def undo(self) -> Exchange | None:
        """Remove the last exchange and return it, None if there is none."""
        if not self.exchanges:
            return None
        removed = self.exchanges.pop()
        # The model must see the exchange that is now the last, or there would be nothing to go on from.
        self.first = max(0, min(self.first, len(self.exchanges) - 1))
        return removed

    def save(self, path: Path, model: str) -> None:
        """Write everything, thinking included, as JSON or Markdown by the suffix of the file.

        Args:
            path: replaced in one step.
            model: whose answers they are.

        Raises:
            OSError: the file cannot be written.
        """
        text = self.to_json(model) if path.suffix.lower() == ".json" else self.to_markdown(model)
        atomic_write(path, text.encode("utf-8", errors="replace"))

    def to_json(self, model: str) -> str:
        """As a JSON object with `model` and `messages`."""
        messages: list[dict[str, str]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        for exchange in self.exchanges:
            messages.append({"role": "user", "content": exchange.question})
            if exchange.answer is not None:
                said = {"role": "assistant", "content": exchange.answer}
                messages.append(said | ({"reasoning": exchange.reasoning} if exchange.reasoning else {}))
        return json.dumps({"model": model, "messages": messages}, ensure_ascii=False, indent=2) + "\n"

    def to_markdown(self, model: str) -> str:
        """As a transcript to be read, thinking folded away."""
        parts = [f"# Chat with {model}"]
        if self.system is not None:
            parts += ["## System", self.system]
        for exchange in self.exchanges:
            parts += ["## You", exchange.question, "## Model"]
            if exchange.reasoning:
                thinking = exchange.reasoning.strip("\n")
                parts.append(f"<details>\n<summary>Thinking</summary>\n\n{thinking}\n\n</details>")
            parts.append(exchange.answer or "*(no answer)*")
        return "\n\n".join(parts) + "\n"
