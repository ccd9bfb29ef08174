"""The shape of a decoder-hybrid-decoder model, its presets, and the role of every layer in words.

Shape legend: `hidden_size` is the width of the residual stream; a Mamba layer works at
`d_inner = mamba_expand * hidden_size` channels with `mamba_d_state` states each; attention has
`num_attention_heads` query and `num_key_value_heads` key-value heads of `head_dim`.

Source: arXiv 2507.06607 and the `config.json` of `microsoft/Phi-4-mini-flash-reasoning`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sambay import hub
from sambay.errors import ConfigError

__all__ = ["DTYPES", "PRESETS", "LayerRole", "SambaYConfig", "preset"]

MODEL_TYPE = "phi4flash"
ARCHITECTURE = "Phi4FlashForCausalLM"

DTYPES = ("float32", "bfloat16", "float16")
"""What the weights of a model can be, by the names of torch; here, because it needs no torch to be read."""


class LayerRole(str, Enum):
    """What the mixer of one layer does.

    The first three are the self-decoder, `FULL` owns the only cache that grows, the last two are the
    cross-decoder, which writes no state at all.
    """

    MAMBA = "mamba"
    SLIDING = "sliding attention"
    MEMORY = "mamba, its scan output is the memory"
    FULL = "full attention, owns the shared KV cache"
    GMU = "gated memory unit"
    CROSS = "cross-attention to the shared KV cache"

    @property
    def is_mamba(self) -> bool:
        """True for both kinds of Mamba layer."""
        return self in (LayerRole.MAMBA, LayerRole.MEMORY)

    @property
    def is_attention(self) -> bool:
        """True for every layer that attends (sliding, full, cross)."""
        return self in (LayerRole.SLIDING, LayerRole.FULL, LayerRole.CROSS)


@dataclass(frozen=True)
class SambaYConfig:
    """Everything that decides the shapes and the arithmetic of a model; immutable and hashable.

    Field names are those of the Hugging Face `config.json`. The fields after `torch_dtype` are ours: they
    hold the muP++ family (`residual_multiplier`, `logits_multiplier`) and the architecture variants of the
    paper (plain attention, RMSNorm), and default to what Phi-4-mini-flash does.

    Raises:
        ConfigError: a value out of range, naming field, value and bound.
    """

    vocab_size: int = 200_064
    hidden_size: int = 2560
    intermediate_size: int = 10_240
    num_hidden_layers: int = 32
    num_attention_heads: int = 40
    num_key_value_heads: int = 20
    sliding_window: int = 512
    mamba_d_state: int = 16
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_dt_rank: int = 160
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 262_144
    bos_token_id: int | None = 199_999
    eos_token_id: int | tuple[int, ...] | None = 199_999
    pad_token_id: int | None = 199_999
    torch_dtype: str = "bfloat16"
    head_dim: int = 0
    attention_bias: bool = True
    differential_attention: bool = True
    norm_type: str = "layernorm"
    residual_multiplier: float = 1.0
    logits_multiplier: float = 1.0

    def __post_init__(self) -> None:
        for name, least, most in _INTEGER_BOUNDS:
            value = getattr(self, name)
            if name == "head_dim" and value == 0:
                value = self._default_head_dim()
                object.__setattr__(self, name, value)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"{name} is {value!r}: it must be an integer from {least} to {most:,}")
        self._check()

    def _default_head_dim(self) -> int:
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}: choose a multiple, or give head_dim"
            )
        return self.hidden_size // self.num_attention_heads

    def _check(self) -> None:
        for field in dataclasses.fields(self):
            if field.type == "bool" and not isinstance(getattr(self, field.name), bool):
                raise ConfigError(f"{field.name} is {getattr(self, field.name)!r}: it must be true or false")
        for name in ("layer_norm_eps", "residual_multiplier", "logits_multiplier"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1e6:
                raise ConfigError(f"{name} is {value!r}: it must be a positive number, at most a million")
        if self.num_hidden_layers % 4:
            raise ConfigError(
                f"num_hidden_layers is {self.num_hidden_layers}: it must be a multiple of 4, so that the memory "
                "layer (half the depth) is a Mamba layer and the layer after it the full attention"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}: query heads share key-value heads in equal groups"
            )
        if self.differential_attention and self.num_key_value_heads % 2:
            raise ConfigError(
                f"num_key_value_heads is {self.num_key_value_heads}: differential attention pairs heads, "
                "so it must be even"
            )
        if self.norm_type not in ("layernorm", "rmsnorm"):
            raise ConfigError(f"norm_type is {self.norm_type!r}: it must be 'layernorm' or 'rmsnorm'")
        if self.torch_dtype not in DTYPES:
            raise ConfigError(f"torch_dtype is {self.torch_dtype!r}: it must be one of {', '.join(DTYPES)}")
        tokens = [("bos", self.bos_token_id), ("pad", self.pad_token_id)]
        ends = self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)
        for name, token in [*tokens, *(("eos", end) for end in ends)]:
            whole = isinstance(token, int) and not isinstance(token, bool)
            if token is not None and not (whole and 0 <= token < self.vocab_size):
                raise ConfigError(
                    f"{name}_token_id is {token!r}: it must be a token id below vocab_size {self.vocab_size}"
                )

    @property
    def d_inner(self) -> int:
        """Channels of a Mamba layer and of the memory."""
        return self.mamba_expand * self.hidden_size

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end-of-sequence ids as a tuple, empty when there is none."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    @property
    def memory_layer(self) -> int:
        """Index (0-based) of the Mamba layer whose scan output is the memory."""
        return self.num_hidden_layers // 2

    @property
    def full_layer(self) -> int:
        """Index (0-based) of the full-attention layer that owns the shared KV cache."""
        return self.memory_layer + 1

    def layer_plan(self) -> tuple[LayerRole, ...]:
        """The role of every layer, in order."""
        half = self.memory_layer
        plan = []
        for layer in range(self.num_hidden_layers):
            if layer % 2 == 0:
                role = LayerRole.MAMBA if layer < half else LayerRole.MEMORY if layer == half else LayerRole.GMU
            elif layer < half:
                role = LayerRole.SLIDING
            else:
                role = LayerRole.FULL if layer == half + 1 else LayerRole.CROSS
            plan.append(role)
        return tuple(plan)

    def num_parameters(self) -> int:
        """The exact number of parameters by the shapes (tied weights counted once)."""
        h, inner, rank = self.hidden_size, self.d_inner, self.mamba_dt_rank
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        norm = h * (2 if self.norm_type == "layernorm" else 1)
        bias = self.attention_bias
        proj_bias = self.mamba_proj_bias
        out = q * h + bias * h
        differential = 6 * self.head_dim if self.differential_attention else 0
        mamba = (
            h * 2 * inner
            + inner * h
            + proj_bias * (2 * inner + h)
            + inner * self.mamba_d_conv
            + self.mamba_conv_bias * inner
            + inner * (rank + 2 * self.mamba_d_state)
            + rank * inner
            + inner
            + inner * self.mamba_d_state
            + inner
        )
        self_attention = h * (q + 2 * kv) + bias * (q + 2 * kv) + out + differential
        cross = h * q + bias * q + out + differential
        gmu = 2 * h * inner + proj_bias * (inner + h)
        mlp = 3 * h * self.intermediate_size + self.mlp_bias * (2 * self.intermediate_size + h)
        sizes = {
            LayerRole.MAMBA: mamba,
            LayerRole.MEMORY: mamba,
            LayerRole.GMU: gmu,
            LayerRole.CROSS: cross,
            LayerRole.SLIDING: self_attention,
            LayerRole.FULL: self_attention,
        }
        layers = sum(sizes[role] + mlp + 2 * norm for role in self.layer_plan())
        head = (0 if self.tie_word_embeddings else self.vocab_size * h) + self.lm_head_bias * self.vocab_size
        return self.vocab_size * h + layers + norm + head

    def to_dict(self) -> dict[str, Any]:
        """The Hugging Face `config.json` of this model.

        Our own fields are written only where they differ from what Phi-4-mini-flash does, so that its
        configuration round-trips with the keys that it came with.
        """
        out: dict[str, Any] = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _OURS and value == field.default:
                continue
            if field.name == "head_dim" and value * self.num_attention_heads == self.hidden_size:
                continue
            out[field.name] = list(value) if isinstance(value, tuple) else value
        out.update(mb_per_layer=2, hidden_act="silu", use_cache=True)
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SambaYConfig:
        """Build from the contents of a `config.json`.

        Args:
            values: the parsed JSON object. Keys that do not describe this architecture (`use_cache`,
                `rope_theta`, `transformers_version`, ...) are ignored, as Hugging Face does.

        Raises:
            ConfigError: a required key is missing, or a value is out of range or not supported.
        """
        kind = values.get("model_type", MODEL_TYPE)
        if kind != MODEL_TYPE:
            raise ConfigError(f"model_type is {kind!r}: this is not a SambaY checkpoint ({MODEL_TYPE!r} is needed)")
        for key, only in (("mb_per_layer", 2), ("hidden_act", "silu")):
            if values.get(key, only) != only:
                raise ConfigError(f"{key} is {values[key]!r}: only {only!r} is supported")
        missing = [key for key in _REQUIRED if key not in values]
        if missing:
            raise ConfigError(f"the configuration lacks {', '.join(missing)}")
        known = {field.name for field in dataclasses.fields(cls)}
        found = {key: value for key, value in values.items() if key in known}
        if "torch_dtype" not in values and "dtype" in values:  # transformers 5 writes the short name
            found["torch_dtype"] = values["dtype"]
        if found.get("torch_dtype") is None:
            found["torch_dtype"] = "float32"
        if found.get("head_dim", 0) is None:
            del found["head_dim"]
        if found.get("mamba_dt_rank", "auto") == "auto":
            width = values["hidden_size"]  # if it is no integer, its own check says so
            found["mamba_dt_rank"] = -(-width // 16) if isinstance(width, int) else 1
        if isinstance(found.get("sliding_window"), list):  # one entry a layer, null where there is no window
            windows = [window for window in found["sliding_window"] if window is not None]
            if not windows or any(window != windows[0] for window in windows):
                raise ConfigError(f"sliding_window lists {windows}: all windows must be of one size")
            found["sliding_window"] = windows[0]
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            found.setdefault(name, None)
        if isinstance(found["eos_token_id"], list):  # JSON has no tuples
            found["eos_token_id"] = tuple(found["eos_token_id"])
        try:
            return cls(**found)
        except TypeError as error:  # a list or a string where a number belongs
            raise ConfigError(f"the configuration has a value of the wrong type: {error}") from None

    @classmethod
    def from_pretrained(cls, model: str | Path, *, revision: str | None = None) -> SambaYConfig:
        """The configuration of a checkpoint.

        Args:
            model: a directory, or a model id on the hub (downloaded once, without the weights).
            revision: branch, tag or commit on the hub.

        Raises:
            CheckpointError: there is no such model.
            ConfigError: as `from_json`.
        """
        return cls.from_json(hub.resolve(model, revision=revision, weights=False) / "config.json")

    @classmethod
    def from_json(cls, path: str | Path) -> SambaYConfig:
        """Read a `config.json`.

        Raises:
            ConfigError: the file is not there, is not a JSON object, holds an impossible value, or describes
                weights that other software has quantised.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist: a checkpoint directory holds a config.json") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} cannot be read as JSON: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path} holds a {type(values).__name__}: it must be a JSON object")
        quantised = values.get("quantization_config")
        if quantised and not (isinstance(quantised, dict) and quantised.get("quant_method") == "sambay"):
            raise ConfigError(
                f"{path} has a quantization_config of other software, whose weights cannot be read: take the "
                "checkpoint that they were made from, and run `sambay quantize` on it"
            )
        return cls.from_dict(values)


_OURS = frozenset(("attention_bias", "differential_attention", "norm_type", "residual_multiplier", "logits_multiplier"))
_REQUIRED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "sliding_window",
)  # fmt: skip
_INTEGER_BOUNDS = (
    ("vocab_size", 1, 2**24), ("hidden_size", 1, 2**20), ("intermediate_size", 1, 2**22),
    ("num_hidden_layers", 4, 1024), ("num_attention_heads", 1, 4096), ("num_key_value_heads", 1, 4096),
    ("head_dim", 1, 4096), ("sliding_window", 1, 2**24), ("mamba_d_state", 1, 1024), ("mamba_d_conv", 1, 64),
    ("mamba_expand", 1, 64), ("mamba_dt_rank", 1, 2**20), ("max_position_embeddings", 1, 2**40),
)  # fmt: skip


def _family(depth: int, differential: bool) -> SambaYConfig:
    """The muP++ scaling family of the paper: width 124 x depth, window 128, no biases, RMSNorm.

    Attention works at width 128 x depth in either case. With differential attention the heads are twice
    as many and half as wide (64, as in Phi-4-mini-flash), which keeps the parameters and gives an even
    number of key-value heads at every depth.
    """
    width = 124 * depth
    split = 2 if differential else 1
    return SambaYConfig(
        vocab_size=32_000, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth,
        num_attention_heads=depth * split, num_key_value_heads=depth // 4 * split, head_dim=128 // split,
        sliding_window=128, mamba_dt_rank=math.ceil(width / 16), tie_word_embeddings=False,
        max_position_embeddings=32_768, bos_token_id=1, eos_token_id=2, pad_token_id=None,
        attention_bias=False, differential_attention=differential, norm_type="rmsnorm",
        residual_multiplier=1 / math.sqrt(2 * depth), logits_multiplier=16 / depth,
    )  # fmt: skip


def _tiny(**changes: Any) -> SambaYConfig:  # noqa: ANN401 - forwarded to a typed constructor
    """A few hundred thousand parameters: for tests and for trying a training recipe."""
    tiny = SambaYConfig(
        vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=16, mamba_d_state=8, mamba_dt_rank=4,
        max_position_embeddings=4096, bos_token_id=0, eos_token_id=0, pad_token_id=0, torch_dtype="float32",
    )  # fmt: skip
    return dataclasses.replace(tiny, **changes)


_FAMILY_DEPTHS = (8, 12, 16, 20, 24)

PRESETS: dict[str, SambaYConfig] = {
    "phi4-mini-flash": SambaYConfig(),
    **{f"sambay-d{depth}": _family(depth, differential=False) for depth in _FAMILY_DEPTHS},
    **{f"sambay-da-d{depth}": _family(depth, differential=True) for depth in _FAMILY_DEPTHS},
    "tiny": _tiny(),
    "tiny-plain": _tiny(
        differential_attention=False, norm_type="rmsnorm", attention_bias=False, tie_word_embeddings=False
    ),
}
"""Configurations by name: the released model, the muP++ families by depth, and tiny ones."""


def preset(name: str) -> SambaYConfig:
    """The preset of that name.

    Raises:
        ConfigError: there is none; the message lists those that exist.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}") from None
