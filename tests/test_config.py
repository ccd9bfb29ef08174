"""Configurations: the shapes they describe, what they reject and how, and their way to disk and back."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import layer_types, shapes
from sambay.config import PRESETS, LayerRole, SambaYConfig, preset
from sambay.errors import CheckpointError, ConfigError, SambaYError
from sambay.model import SambaY

SMALL = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2, "sliding_window": 4, "mamba_d_state": 3, "mamba_dt_rank": 2,
}  # fmt: skip


def small(**changes):
    return SambaYConfig.from_dict(SMALL | changes)


def parameters_of(config):
    with torch.device("meta"):
        return sum(p.numel() for p in SambaY(config).parameters())


# ---- shapes


def test_the_released_model_has_exactly_its_parameters():
    config = preset("phi4-mini-flash")
    assert config == SambaYConfig()
    assert config.num_parameters() == 3_852_562_944
    assert parameters_of(config) == 3_852_562_944


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_every_preset(name):
    config = PRESETS[name]
    assert config.num_parameters() == parameters_of(config)
    assert config.num_parameters() == sum(math.prod(s) for s in shapes(config.to_dict()).values())


def configurations():
    whole = st.integers
    base = st.fixed_dictionaries({
        "vocab_size": whole(1, 99), "hidden_size": whole(1, 40), "intermediate_size": whole(1, 50),
        "num_hidden_layers": whole(1, 6).map(lambda x: 4 * x), "sliding_window": whole(1, 9),
        "mamba_d_state": whole(1, 9),
        "mamba_d_conv": whole(1, 9), "mamba_expand": whole(1, 4), "mamba_dt_rank": whole(1, 9),
        "head_dim": whole(1, 9),
        "max_position_embeddings": whole(1, 10**6), "layer_norm_eps": st.floats(1e-8, 1e-1),
        "torch_dtype": st.sampled_from(["float32", "bfloat16", "float16"]),
        "norm_type": st.sampled_from(["layernorm", "rmsnorm"]), "residual_multiplier": st.floats(1e-3, 10),
        "logits_multiplier": st.floats(1e-3, 10), "bos_token_id": st.none() | st.just(0),
        "eos_token_id": st.none() | st.just(0) | st.just((0,)) | st.just(()), **{
            key: st.booleans()
            for key in (
                "mamba_conv_bias", "mamba_proj_bias", "mlp_bias", "lm_head_bias", "tie_word_embeddings",
                "attention_bias",
            )
        },
    })  # fmt: skip
    heads = st.tuples(st.booleans(), whole(1, 4), whole(1, 4)).map(
        lambda x: {
            "differential_attention": x[0],
            "num_key_value_heads": x[1] * (1 + x[0]),
            "num_attention_heads": x[1] * x[2] * (1 + x[0]),
        }
    )
    return st.tuples(base, heads).map(lambda x: SambaYConfig(**x[0], **x[1], pad_token_id=None))


@settings(max_examples=60)
@given(config=configurations())
def test_parameters_of_random_configurations(config):
    assert config.num_parameters() == parameters_of(config)
    assert config.num_parameters() == sum(
        math.prod(s) for s in shapes(config.to_dict() | {"head_dim": config.head_dim}).values()
    )


@settings(max_examples=100)
@given(config=configurations())
def test_round_trip(config):
    assert SambaYConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_of_presets(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PRESETS[name].to_dict()))
    assert SambaYConfig.from_json(path) == SambaYConfig.from_json(str(path)) == PRESETS[name]


def test_round_trip_of_the_golden_configuration(golden_dir):
    original = json.loads((golden_dir / "config.json").read_text())
    config = SambaYConfig.from_json(golden_dir / "config.json")
    written = config.to_dict()
    assert SambaYConfig.from_dict(written) == config
    assert {key: written[key] for key in original.keys() & written.keys()} == {
        key: original[key] for key in original.keys() & written.keys()
    }
    # what we leave out says nothing about this architecture, and we add no key of our own
    assert original.keys() - written.keys() <= {
        "attention_dropout", "embd_pdrop", "resid_pdrop", "initializer_range", "rope_theta", "use_cache",
    }  # fmt: skip
    assert written.keys() <= original.keys()
    assert (config.head_dim, config.d_inner, config.memory_layer, config.full_layer) == (8, 128, 4, 5)


def test_own_fields_are_written_where_they_differ():
    assert not {"attention_bias", "norm_type", "head_dim"} & preset("phi4-mini-flash").to_dict().keys()
    written = preset("sambay-d16").to_dict()
    assert (written["attention_bias"], written["norm_type"], written["head_dim"]) == (False, "rmsnorm", 128)
    assert written["residual_multiplier"] == 1 / math.sqrt(32)


def test_layer_plan_of_32_layers():
    plan = SambaYConfig().layer_plan()
    expected = {
        **dict.fromkeys(range(0, 16, 2), LayerRole.MAMBA),
        **dict.fromkeys(range(1, 16, 2), LayerRole.SLIDING),
        16: LayerRole.MEMORY, 17: LayerRole.FULL,
        **dict.fromkeys(range(18, 31, 2), LayerRole.GMU), **dict.fromkeys(range(19, 32, 2), LayerRole.CROSS),
    }  # fmt: skip
    assert plan == tuple(expected[layer] for layer in range(32))
    assert (SambaYConfig().memory_layer, SambaYConfig().full_layer) == (16, 17)


def test_layer_plan_of_8_and_4_layers():
    r = LayerRole
    assert small().layer_plan() == (r.MAMBA, r.SLIDING, r.MAMBA, r.SLIDING, r.MEMORY, r.FULL, r.GMU, r.CROSS)
    assert small(num_hidden_layers=4).layer_plan() == (r.MAMBA, r.SLIDING, r.MEMORY, r.FULL)


@pytest.mark.parametrize("layers", range(4, 65, 4))
def test_layer_plan_is_the_description(layers):
    names = {
        LayerRole.MAMBA: "mamba", LayerRole.SLIDING: "window", LayerRole.MEMORY: "memory",
        LayerRole.FULL: "full",
        LayerRole.GMU: "gmu", LayerRole.CROSS: "cross",
    }  # fmt: skip
    plan = small(num_hidden_layers=layers).layer_plan()
    assert [names[role] for role in plan] == layer_types(layers)
    assert [role.is_mamba for role in plan] == [names[role] in ("mamba", "memory") for role in plan]
    assert [role.is_attention for role in plan] == [names[role] in ("window", "full", "cross") for role in plan]


@pytest.mark.parametrize("depth", [8, 12, 16, 20, 24])
@pytest.mark.parametrize("kind", ["sambay-d", "sambay-da-d"])
def test_the_scaling_family(kind, depth):
    """Width 124 x depth, window 128, residual branches x 1/sqrt(2 depth), unembedding x 16/depth."""
    config = preset(f"{kind}{depth}")
    assert (config.hidden_size, config.num_hidden_layers, config.sliding_window) == (124 * depth, depth, 128)
    assert config.residual_multiplier == pytest.approx(1 / math.sqrt(2 * depth))
    assert config.logits_multiplier == pytest.approx(16 / depth)
    assert config.differential_attention == ("da" in kind)
    assert not config.tie_word_embeddings
    assert not config.attention_bias
    assert config.norm_type == "rmsnorm"
    assert config.num_parameters() == preset(f"sambay-d{depth}").num_parameters() + ("da" in kind) * (
        (depth // 2) * 6 * 64  # lambdas and norms of the pairs
    )


def test_unknown_preset():
    with pytest.raises(ConfigError) as caught:
        preset("phi5")
    assert "'phi5'" in str(caught.value)
    assert all(name in str(caught.value) for name in PRESETS)


def test_configurations_are_immutable_and_hashable():
    config = small(eos_token_id=[1, 2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.vocab_size = 3
    assert hash(config) == hash(small(eos_token_id=[1, 2]))
    assert len({config, small(eos_token_id=[1, 2]), small()}) == 2


# ---- what a config.json may say


def test_end_of_sequence_ids():
    assert small().eos_token_ids == ()
    assert small(eos_token_id=None).eos_token_ids == ()
    assert small(eos_token_id=7).eos_token_ids == (7,)
    assert small(eos_token_id=[7, 3]).eos_token_ids == (7, 3)
    assert small(eos_token_id=[7, 3]).to_dict()["eos_token_id"] == [7, 3]


def test_special_tokens_that_are_not_named_are_none():
    config = small()
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)


@pytest.mark.parametrize(("given_values", "expected"), [
    ({}, "float32"), ({"torch_dtype": None}, "float32"), ({"dtype": "float16"}, "float16"),
    ({"torch_dtype": "bfloat16"}, "bfloat16"), ({"torch_dtype": "bfloat16", "dtype": "float16"}, "bfloat16"),
])  # fmt: skip
def test_names_of_the_dtype(given_values, expected):
    assert small(**given_values).torch_dtype == expected


@pytest.mark.parametrize(("hidden", "rank"), [(24, 2), (16, 1), (17, 2), (2560, 160)])
def test_automatic_rank(hidden, rank):
    values = SMALL | {"hidden_size": hidden, "head_dim": 4}
    del values["mamba_dt_rank"]
    assert SambaYConfig.from_dict(values).mamba_dt_rank == rank
    assert SambaYConfig.from_dict(values | {"mamba_dt_rank": "auto"}).mamba_dt_rank == rank


def test_windows_listed_by_layer():
    assert small(sliding_window=[None, 9, None, 9]).sliding_window == 9
    for windows in ([8, 9], [], [None]):
        with pytest.raises(ConfigError, match="sliding_window"):
            small(sliding_window=windows)


def test_width_of_heads():
    assert small().head_dim == 6
    assert small(head_dim=None).head_dim == 6
    assert small(head_dim=10).head_dim == 10
    assert small(head_dim=10).to_dict()["head_dim"] == 10


def test_keys_of_other_kinds_are_ignored():
    assert small(use_cache=False, rope_theta="x", transformers_version="9", auto_map={}, _name_or_path=None) == small()


# ---- what is rejected


INTEGERS = {
    "vocab_size": (1, 2**24), "hidden_size": (1, 2**20), "intermediate_size": (1, 2**22),
    "num_hidden_layers": (4, 1024),
    "num_attention_heads": (1, 4096), "num_key_value_heads": (1, 4096), "head_dim": (1, 4096),
    "sliding_window": (1, 2**24), "mamba_d_state": (1, 1024), "mamba_d_conv": (1, 64),
    "mamba_expand": (1, 64),
    "mamba_dt_rank": (1, 2**20), "max_position_embeddings": (1, 2**40),
}  # fmt: skip
JUNK = [
    True,
    False,
    "12",
    "",
    "many",
    4.0,
    4.5,
    math.nan,
    math.inf,
    -math.inf,
    -4,
    10**30,
    10**400,
    {},
    {"a": 1},
]


def assert_explains(error, *parts):
    message = str(error.value)
    assert isinstance(error.value, SambaYError)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def digits(value):
    return repr(value)[:20]


def impossible_integers():
    for name in INTEGERS:
        for value in [*JUNK, 0, None, [], [4]]:
            not_given = name == "head_dim" and value in (0, None)
            by_layer = name == "sliding_window" and isinstance(value, list)
            if not not_given and not by_layer:
                yield pytest.param(name, value, id=f"{name} {value!r:.12}")


@pytest.mark.parametrize(("name", "value"), list(impossible_integers()))
def test_integers_that_are_not(name, value):
    """Whether through Python or through a file, with or without a head_dim to fall back on."""
    extra = [{}] if name == "head_dim" else [{}, {"head_dim": 6}]
    for head_dim in extra:
        for make in (lambda values: SambaYConfig(**values), SambaYConfig.from_dict):
            with pytest.raises(ConfigError) as caught:
                make(SMALL | head_dim | {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, name: value})
            assert_explains(caught, name, digits(value))


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_out_of_bounds(name):
    least, most = INTEGERS[name]
    values = SMALL | {"head_dim": 6}
    for value in (least - 1, most + 1):
        if name == "head_dim" and value == 0:
            value = -1
        with pytest.raises(ConfigError) as caught:
            SambaYConfig.from_dict(values | {name: value})
        assert_explains(caught, name, f"{value}", f"{least}", f"{most:,}")


def test_integers_at_their_bounds():
    plain = SMALL | {"head_dim": 6, "differential_attention": False}
    for name, (least, most) in INTEGERS.items():
        for value in (least, most):
            values = plain | {name: value}
            if name == "num_attention_heads":
                values["num_key_value_heads"] = 1
            if name == "num_key_value_heads":
                values["num_attention_heads"] = value
            assert getattr(SambaYConfig.from_dict(values), name) == value


BOOLEANS = (
    "mamba_conv_bias", "mamba_proj_bias", "mlp_bias", "lm_head_bias", "tie_word_embeddings", "attention_bias",
    "differential_attention",
)  # fmt: skip


@pytest.mark.parametrize("value", [0, 1, "true", None, math.nan, [], {}], ids=repr)
@pytest.mark.parametrize("name", BOOLEANS)
def test_booleans_that_are_not(name, value):
    with pytest.raises(ConfigError) as caught:
        small(**{name: value})
    assert_explains(caught, name, repr(value), "true or false")


@pytest.mark.parametrize(
    "value",
    [True, "1e-5", None, math.nan, math.inf, -1e-5, 0, 0.0, 10**400, [], {}],
    ids=lambda v: repr(v)[:12],
)
@pytest.mark.parametrize("name", ["layer_norm_eps", "residual_multiplier", "logits_multiplier"])
def test_numbers_that_are_not(name, value):
    with pytest.raises(ConfigError) as caught:
        small(**{name: value})
    assert_explains(caught, name, digits(value), "positive")


@pytest.mark.parametrize("value", [-1, 50, 10**400, 1.0, "1", True, math.nan, {}], ids=lambda v: repr(v)[:12])
@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_tokens_outside_the_vocabulary(name, value):
    with pytest.raises(ConfigError) as caught:
        small(**{name: value})
    assert_explains(caught, name, digits(value), "50")
    if name == "eos_token_id":
        with pytest.raises(ConfigError) as caught:
            small(eos_token_id=[1, value])
        assert_explains(caught, name, digits(value), "50")


@pytest.mark.parametrize("name", ["bos_token_id", "pad_token_id"])
@pytest.mark.parametrize("value", [[1], (1,), [1, 2]], ids=repr)
def test_only_the_end_may_have_several_tokens(name, value):
    with pytest.raises(ConfigError, match=name):
        small(**{name: value})


@pytest.mark.parametrize(("changes", "parts"), [
    ({"hidden_size": 25}, ("hidden_size 25", "num_attention_heads 4")),
    ({"num_hidden_layers": 6}, ("num_hidden_layers is 6", "multiple of 4")),
    ({"num_hidden_layers": 9}, ("num_hidden_layers is 9", "multiple of 4")),
    ({"num_attention_heads": 6, "num_key_value_heads": 4}, ("heads 6", "num_key_value_heads 4")),
    ({"num_attention_heads": 3, "num_key_value_heads": 3}, ("num_key_value_heads is 3", "even")),
    ({"num_attention_heads": 4, "num_key_value_heads": 1}, ("num_key_value_heads is 1", "even")),
    ({"norm_type": "batchnorm"}, ("norm_type is 'batchnorm'", "'layernorm'", "'rmsnorm'")),
    ({"norm_type": None}, ("norm_type is None",)),
    ({"norm_type": []}, ("norm_type is []",)),
    ({"torch_dtype": "int8"}, ("torch_dtype is 'int8'", "float32", "bfloat16", "float16")),
    ({"torch_dtype": 16}, ("torch_dtype is 16",)),
    ({"torch_dtype": {}}, ("torch_dtype is {}",)),
    ({"model_type": "phi3"}, ("model_type is 'phi3'", "phi4flash")),
    ({"model_type": None}, ("model_type is None", "phi4flash")),
    ({"mb_per_layer": 4}, ("mb_per_layer is 4", "2")),
    ({"hidden_act": "gelu"}, ("hidden_act is 'gelu'", "'silu'")),
    ({"sliding_window": [8, 9]}, ("sliding_window", "8", "9")),
    ({"sliding_window": [8, "9"]}, ("sliding_window", "9")),
    ({"sliding_window": [8, [9]]}, ("sliding_window", "9")),
    ({"sliding_window": [{}]}, ("sliding_window",)),
    ({"sliding_window": ["8"]}, ("sliding_window is '8'",)),
])  # fmt: skip
def test_values_that_do_not_fit(changes, parts):
    with pytest.raises(ConfigError) as caught:
        small(**changes)
    assert_explains(caught, *parts)


@pytest.mark.parametrize("value", [*JUNK, None, []], ids=lambda v: repr(v)[:12])
def test_automatic_rank_of_a_width_that_is_none(value):
    values = {key: v for key, v in SMALL.items() if key != "mamba_dt_rank"}
    with pytest.raises(ConfigError) as caught:
        SambaYConfig.from_dict(values | {"hidden_size": value})
    assert_explains(caught, "hidden_size", digits(value))


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                  "num_attention_heads", "num_key_value_heads",
                                  "sliding_window"])  # fmt: skip
def test_missing_keys(name):
    with pytest.raises(ConfigError, match=f"lacks {name}$"):
        SambaYConfig.from_dict({key: value for key, value in SMALL.items() if key != name})


def test_all_missing_keys_are_named_at_once():
    with pytest.raises(ConfigError, match=r"lacks vocab_size, hidden_size, .*, sliding_window$"):
        SambaYConfig.from_dict({})


FILES = {
    "empty": b"", "truncated": b'{"vocab_size": 5', "text": b"hello", "not utf-8": b'{"a": "\xff"}',
    "bom": b"\xef\xbb\xbf{}",
    "utf-16": json.dumps(SMALL).encode("utf-16"), "list": b"[1]", "number": b"3", "null": b"null",
    "string": b'"x"',
    "nan": b"NaN", "deep": b"[" * 200_000, "deep object": b'{"a":' * 200_000,
    "digits": b'{"vocab_size": ' + b"9" * 5000 + b"}", "nul": b"\0" * 64,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_configuration(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_bytes(FILES[name])
    with pytest.raises(ConfigError) as caught:
        SambaYConfig.from_json(path)
    assert_explains(caught, str(path))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError) as caught:
        SambaYConfig.from_json(tmp_path / "config.json")
    assert_explains(caught, str(tmp_path / "config.json"), "does not exist")
    with pytest.raises(ConfigError) as caught:
        SambaYConfig.from_json(tmp_path)  # a directory
    assert_explains(caught, str(tmp_path))


def test_from_pretrained_takes_what_a_model_is_found_by(tmp_path, golden_dir):
    assert SambaYConfig.from_pretrained(golden_dir) == SambaYConfig.from_json(golden_dir / "config.json")
    with pytest.raises(CheckpointError, match="does not exist"):
        SambaYConfig.from_pretrained(tmp_path / "none")


def test_quantised_weights_are_refused_and_not_read_as_if_they_were_plain(tmp_path):
    path = tmp_path / "config.json"
    values = PRESETS["tiny"].to_dict()
    for absent in ({}, {"quantization_config": None}):
        path.write_text(json.dumps(values | absent))
        assert SambaYConfig.from_json(path) == PRESETS["tiny"]
    path.write_text(json.dumps(values | {"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(ConfigError, match=r"config\.json has a quantization_config of other software"):
        SambaYConfig.from_json(path)


@settings(max_examples=150)
@given(data=st.data())
def test_no_json_breaks_the_reader(data):
    """Any value in any place: a configuration, or a ConfigError."""
    atoms = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from([2**70, 8, 4])
    )
    junk = st.recursive(atoms, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=2), x, max_size=2))
    known = [field.name for field in dataclasses.fields(SambaYConfig)]
    keys = st.sampled_from([*known, "model_type", "mb_per_layer", "hidden_act", "dtype"])
    values = SMALL | data.draw(st.dictionaries(keys, junk, min_size=1, max_size=3))
    for key in data.draw(st.sets(st.sampled_from(sorted(SMALL)), max_size=1)):
        values.pop(key)
    try:
        config = SambaYConfig.from_dict(json.loads(json.dumps(values)))
    except ConfigError:
        return
    assert SambaYConfig.from_dict(config.to_dict()) == config
    assert config.num_parameters() > 0
