"""`Phi4FlashForCausalLM`: the one model, `SambaY`, in the shape that transformers, PEFT and TRL expect.

Shape legend: B rows, T columns (with padding), N real tokens in D documents, K columns whose logits are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.hub import cached_file

from sambay.batch import Batch
from sambay.checkpoint import HEAD, check_tied_head
from sambay.errors import CheckpointError, PromptError, SambaYError
from sambay.hf.cache import SambaYCache
from sambay.hf.config import Phi4FlashConfig
from sambay.hf.names import disk_name, register_names
from sambay.hf.packing import Packing, document_numbers
from sambay.model import Head, SambaY

__all__ = ["Phi4FlashForCausalLM"]

_WHERE = ("cache_dir", "local_files_only", "revision", "subfolder", "token")
"""Arguments of `from_pretrained` that say where a checkpoint is found."""


class Phi4FlashForCausalLM(PreTrainedModel, GenerationMixin):
    """A SambaY language model for transformers; `model` is the `SambaY` itself.

    Args:
        config: its shape; the weights are initialised as `SambaY` initialises them.
        model: a model to wrap instead, which shares its weights.
    """

    config: Phi4FlashConfig
    model: SambaY
    config_class = Phi4FlashConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _is_stateful = True  # no assisted decoding: a scan state cannot go back to an earlier token
    _can_compile_fullgraph = False
    _supports_context_parallel = False
    # One device for all: layers are not called as modules, so hooks that move data between them do not run.
    _no_split_modules = ["SambaY"]  # noqa: RUF012 - transformers' own way to declare it
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012

    def __init__(self, config: Phi4FlashConfig, model: SambaY | None = None) -> None:
        super().__init__(config)
        self.model = SambaY(config.to_sambay()) if model is None else model
        self.gradient_checkpointing = False
        if not self.model.embedding.weight.is_meta:
            for module in self.model.modules():
                module.__dict__["_is_hf_initialized"] = True  # SambaY has initialised itself
        self.post_init()

    @classmethod
    def from_sambay(cls, model: SambaY) -> Phi4FlashForCausalLM:
        """Wrap a model; the weights are shared, not copied."""
        config = Phi4FlashConfig.from_sambay(model.config)
        config.dtype = model.dtype
        return cls(config, model)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:  # noqa: ANN401 - what transformers passes
        """Load a checkpoint, as `PreTrainedModel.from_pretrained` does.

        Args:
            *args: a directory or hub name, and what else the method of transformers takes.
            output_loading_info: also return what was loaded.
            **kwargs: likewise; `dtype`, `device_map`, `quantization_config`, ...

        Raises:
            CheckpointError: tensors are missing or surplus, or a tied head differs from the embedding.
                transformers would go on, with random ones or without.
            SambaYError: a `device_map` that splits the model.
        """
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        where = args[0] if args else kwargs.get("pretrained_model_name_or_path", "")
        # A file may repeat the tied embedding as the head.
        tied = HEAD if model.model.lm_head.weight is None else None
        for keys, problem in (("missing_keys", "lacks"), ("unexpected_keys", "has surplus")):
            names = sorted({disk_name(name) for name in info[keys]} - {tied})
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                raise CheckpointError(
                    f"the checkpoint {where} {problem} tensors, {len(names)} of them: {', '.join(names[:5])}{more}"
                )
        if where and tied is not None and info["unexpected_keys"]:
            given = {key: kwargs[key] for key in _WHERE if key in kwargs}
            check_tied_head(Path(str(cached_file(where, "config.json", **given))).parent)
        places = set((getattr(model, "hf_device_map", None) or {}).values())
        if len(places) > 1 or "disk" in places:
            raise SambaYError(
                f"device_map places the model on {sorted(map(str, places))}: a SambaY model runs on one "
                "device, so give device_map='auto', 'cuda' or 'cpu', or quantise it to make it fit"
            )
        return (model, info) if output_loading_info else model

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: SambaYCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **kwargs: Any,  # noqa: ANN401 - what the loss function of transformers takes
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits, and with labels the loss.

        Padding on either side, and documents packed into one row, are taken apart first: padding is not
        computed, and neither states nor losses cross the border of a document.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), or (B, past + T) with a cache; zero where a token is padding.
            position_ids: (B, T). The model has no positional encoding; a position that does not rise begins a
                new document, as in the padding-free batches of TRL.
            past_key_values: continue these sequences, without gradients; the cache is changed.
            inputs_embeds: (B, T, h) in place of `input_ids`.
            labels: (B, T), -100 where there is nothing to learn; shifted here.
            use_cache: make a cache and return it; never in training mode, and by default only without labels.
            logits_to_keep: return logits for the last so many columns only, and compute the cross-decoder for
                no others; 0 for all; or the column indices as a tensor.
            return_dict: False for a tuple.
            **kwargs: `num_items_in_batch`, `shift_labels` and whatever else the loss takes; `seq_idx` or
                `cu_seq_lens_q` may say where documents begin.

        Returns:
            Logits (B, K, vocab) in the dtype of the weights, zero at padding; the loss in float32; the cache.

        Raises:
            PromptError: ids, masks or positions of a wrong shape, or ids outside the vocabulary.
            ContextError: a sequence would outgrow the context.
            SambaYError: something that the model cannot return or take.
        """
        _refuse(past_key_values, kwargs, self.config)
        ids = self._checked(input_ids, inputs_embeds)
        rows, columns = ids.shape
        keep, chosen = _columns(logits_to_keep, columns)
        hidden_states: list[Tensor] | None = None
        if kwargs.pop("output_hidden_states", None) or self.config.output_hidden_states:
            hidden_states = []  # of all columns, so that the cross-decoder must see them all
            keep, chosen = columns, torch.arange(columns - keep, columns) if chosen is None else chosen + columns - keep
        positions, numbers = document_numbers((rows, columns), position_ids, kwargs)
        packing = Packing.of(ids, attention_mask, positions, numbers)
        if past_key_values is None and self._wants_cache(use_cache, labels, packing):
            past_key_values = SambaYCache(self.config)
        extra: dict[str, Any] = {"hidden_states": hidden_states}
        if inputs_embeds is not None:
            extra["embeddings"] = packing.pack(inputs_embeds)
        if self.gradient_checkpointing and self.training:
            extra["runner"] = self._recompute
        if past_key_values is not None:
            packed = past_key_values.run(self.model, packing.pack(ids), packing, keep, **extra)
        elif not packing.lengths:
            raise PromptError(f"attention_mask is zero everywhere: all of input_ids {(rows, columns)} is padding")
        else:
            batch = Batch.packed(packing.pack(ids), packing.lengths, wanted=packing.wanted(keep))
            packed = self.model.run(batch, None, **extra)
        loss = None
        shifted = kwargs.pop("shift_labels", None)
        if labels is not None or shifted is not None:
            loss = self._loss(packed, labels, shifted, packing, keep, kwargs)
        logits = packing.unpack(packed, keep)
        if chosen is not None:
            logits = logits[:, chosen]
        states = None if hidden_states is None else tuple(packing.unpack(each, columns) for each in hidden_states)
        out = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values, hidden_states=states)
        return out if (self.config.return_dict if return_dict is None else return_dict) else out.to_tuple()

    def _checked(self, ids: Tensor | None, embeds: Tensor | None) -> Tensor:
        """(B, T) ids of the vocabulary, none empty; with embeddings, ids that only count."""
        if (ids is None) == (embeds is None):
            raise PromptError("give either input_ids of shape (batch, time) or inputs_embeds; one of them is missing")
        if embeds is not None:
            width = self.model.config.hidden_size
            if embeds.ndim != 3 or embeds.numel() == 0 or embeds.shape[2] != width:
                raise PromptError(
                    f"inputs_embeds have shape {tuple(embeds.shape)}: they must have (batch, time, {width})"
                )
            return torch.zeros(embeds.shape[:2], dtype=torch.int64, device=embeds.device)
        assert ids is not None
        if ids.ndim != 2 or ids.numel() == 0 or ids.dtype.is_floating_point or ids.dtype is torch.bool:
            raise PromptError(
                f"input_ids have shape {tuple(ids.shape)} and dtype {ids.dtype}: give integers, (batch, time)"
            )
        low, high = (int(x) for x in torch.aminmax(ids))
        if low < 0 or high >= self.model.config.vocab_size:
            raise PromptError(
                f"token id {low if low < 0 else high} is outside the vocabulary of "
                f"{self.model.config.vocab_size} ids: use the tokenizer of the model"
            )
        return ids.long()

    def _wants_cache(self, use_cache: bool | None, labels: Tensor | None, packing: Packing) -> bool:
        if use_cache is not None:
            return use_cache and not self.training
        return bool(self.config.use_cache) and not self.training and labels is None and packing.one_per_row

    def _recompute(self, layer: int, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - what the part takes and gives
        """Run a part of a layer so that its backward pass computes it anew, in each `every_n_layers`-th layer.

        Not reentrant, whatever was asked for: reentrant checkpointing loses the gradients of what is not a
        plain tensor argument, such as the shared keys and values.
        """
        if layer % self._every_n_layers:
            return function(*arguments)
        return self._checkpoint(function, *arguments, use_reentrant=False)

    def _loss(
        self,
        logits: Tensor,
        labels: Tensor | None,
        shifted: Tensor | None,
        packing: Packing,
        keep: int,
        kwargs: dict[str, Any],
    ) -> Tensor:
        given = labels if shifted is None else shifted
        assert given is not None
        if given.shape != packing.shape:
            raise PromptError(
                f"labels have shape {tuple(given.shape)}: they must have that of input_ids, {packing.shape}"
            )
        targets = packing.targets(given, keep, shifted=shifted is not None).to(logits.device)
        loss: Tensor = self.loss_function(
            logits=logits, labels=targets, shift_labels=targets, vocab_size=logits.shape[-1], **kwargs
        )
        return loss

    # What is overridden here has other parameters in each version of transformers, hence the ignores.
    def _prepare_cache_for_generation(  # type: ignore[override, unused-ignore]  # by version
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        *args: Any,  # noqa: ANN401 - what else it is given depends on the version of transformers
        **kwargs: Any,  # noqa: ANN401 - what transformers passes
    ) -> None:
        """Begin a `generate` call: check what it was given, and make the cache."""
        mask = model_kwargs.get("attention_mask")
        if mask is not None and not bool(mask[:, -1].all()):
            raise PromptError(
                "a prompt is padded on the right, so that its continuation would follow the padding: "
                "set tokenizer.padding_side = 'left'"
            )
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic"):
            raise SambaYError(f"cache_implementation={kind!r} is not supported: leave it out, the cache is our own")
        if generation_config.use_cache is False or model_kwargs.get("past_key_values") is not None:
            # transformers gives `self` a type of its own there.
            prepare: Any = super()._prepare_cache_for_generation  # type: ignore[misc, unused-ignore]  # by version
            prepare(generation_config, model_kwargs, *args, **kwargs)
        else:
            model_kwargs["past_key_values"] = SambaYCache(self.config)

    def init_continuous_batching(self, *args: object, **kwargs: object) -> NoReturn:
        """Not supported here.

        Raises:
            SambaYError: always; the engine of this package batches continuously.
        """
        raise SambaYError("transformers cannot batch a SambaY model continuously: use sambay's own engine, sambay.LLM")

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        every_n_layers: int = 1,
    ) -> None:
        self.gradient_checkpointing = enable
        self._checkpoint = gradient_checkpointing_func
        self._every_n_layers = every_n_layers

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the tokens."""
        return self.model.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding; a tied model then unembeds by the new one."""
        self.model.embedding = cast("nn.Embedding", value)

    def get_output_embeddings(self) -> nn.Module:
        """The module whose `weight` unembeds: the embedding itself in a tied model, else the head."""
        return self.model.embedding if self.model.lm_head.weight is None else self.model.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the weight of the head.

        Raises:
            SambaYError: the model is tied, so that its head has no weight of its own.
        """
        if new_embeddings is self.get_output_embeddings():
            return
        if self.model.lm_head.weight is None:
            raise SambaYError("the head is tied to the embedding: replace that, with set_input_embeddings")
        self.model.lm_head.weight = cast("nn.Parameter", new_embeddings.weight)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:  # noqa: ANN401 - what transformers passes
        """Grow or shrink the vocabulary, as `PreTrainedModel.resize_token_embeddings` does."""
        embedding: nn.Embedding = super().resize_token_embeddings(*args, **kwargs)
        size = embedding.weight.shape[0]
        head = self.model.lm_head
        if head.bias is not None and head.bias.numel() != size:
            grown = head.bias.new_zeros(size)
            grown[: head.bias.numel()] = head.bias.detach()[:size]
            head.bias = nn.Parameter(grown, head.bias.requires_grad)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(self.config, name)
            ids = token if isinstance(token, (list, tuple)) else [token]
            if any(i is not None and i >= size for i in ids):  # fell away with a smaller vocabulary
                setattr(self.config, name, None)
        self.model.config = self.config.to_sambay()
        return embedding

    def _get_resized_lm_head(  # type: ignore[override, unused-ignore]  # by version
        self,
        old_lm_head: Head,
        *args: Any,  # noqa: ANN401 - what transformers passes
        **kwargs: Any,  # noqa: ANN401 - what transformers passes
    ) -> Head:
        """Resize the head of an untied model, which transformers wants to be an `nn.Linear`."""
        assert old_lm_head.weight is not None
        size, width = old_lm_head.weight.shape
        linear = nn.Linear(width, size, bias=False, device="meta")
        linear.weight = old_lm_head.weight
        resized: Any = super()._get_resized_lm_head(linear, *args, **kwargs)
        old_lm_head.weight = resized.weight
        return old_lm_head


def _refuse(cache: object, kwargs: dict[str, Any], config: Phi4FlashConfig) -> None:
    """One sentence for each thing that other models can do and this one cannot."""
    if cache is not None and not isinstance(cache, SambaYCache):
        raise SambaYError(
            f"past_key_values is a {type(cache).__name__}: leave it out, or give a sambay.hf.SambaYCache(model.config)"
        )
    if kwargs.pop("output_attentions", None) or getattr(config, "output_attentions", False):
        raise SambaYError("output_attentions=True is not supported: attention weights are not kept")


def _columns(logits_to_keep: int | Tensor, columns: int) -> tuple[int, Tensor | None]:
    """How many last columns to compute, and which of them to return (None: all)."""
    if isinstance(logits_to_keep, int):
        return min(logits_to_keep, columns) or columns, None
    chosen = torch.arange(columns, device=logits_to_keep.device)[logits_to_keep]
    keep = columns - int(chosen.min()) if chosen.numel() else 1
    return keep, chosen - (columns - keep)


register_names()
