import math

import pytest

from sambay.engine import SamplingParams, StructuredOutputsParams
from sambay.errors import SambaYError, SamplingError

IMPOSSIBLE = [
    *[("temperature", v, "0 or more") for v in (-0.1, math.nan, math.inf, "hot", True, None)],
    *[("top_p", v, "above 0 and at most 1") for v in (0, 0.0, -1, 1.01, math.nan, "0.9", False)],
    *[("min_p", v, "0 or more and at most 1") for v in (-0.01, 1.5, math.nan, None)],
    *[("repetition_penalty", v, "above 0") for v in (0, -1.0, math.inf, math.nan, "1")],
    *[("presence_penalty", v, "-2 or more and at most 2") for v in (-2.1, 2.1, math.nan, True)],
    *[("frequency_penalty", v, "-2 or more and at most 2") for v in (-2.1, 2.1, math.inf, None)],
    *[("n", v, "from 1 to 1024") for v in (0, -1, 1025, 1.0, True, "2", None)],
    *[("top_k", v, "-1 or more") for v in (-2, 1.5, "5", True, None)],
    *[("min_tokens", v, "0 or more") for v in (-1, 0.5, True, None)],
    *[("max_tokens", v, "1 or more") for v in (0, -5, 1.0, True, "9")],
    *[("logprobs", v, "from 0 to 1000") for v in (-1, 1001, 0.0, True)],
    *[("seed", v, "from -9223372036854775808 to 18446744073709551615") for v in (2**64, -(2**63) - 1, 0.5, True)],
    *[("stop", v, "none empty") for v in ("", [""], ["a", ""], ["a", 1])],
    *[("stop_token_ids", v, "0 or more") for v in ([-1], [1.0], [True], ["a"], [3, None])],
    *[("allowed_token_ids", v, "0 or more") for v in ([-1], [1.0], [True], ["a"], [3, None])],
    *[("logit_bias", v, "0 or more") for v in ({-1: 1}, {"a": 1}, {True: 1}, {1.0: 1})],
    *[("max_thinking_tokens", v, "0 or more") for v in (-1, 1.5, True, "9")],
    *[("bad_words", v, "none empty or blank") for v in ([""], ["a", "  "], [3])],
    *[(name, v, "it must be a list of") for name in ("stop_token_ids", "bad_words") for v in ("no", 5, {}, 1.5)],
    ("stop", 5, "a string or a list of strings"),
    *[("structured_outputs", v, "StructuredOutputsParams(json=schema)") for v in ({"json": {}}, "json", 3)],
]


@pytest.mark.parametrize(("name", "value", "bound"), IMPOSSIBLE)
def test_impossible_values_name_field_value_and_bound(name, value, bound):
    with pytest.raises(SamplingError) as caught:
        SamplingParams(**{name: value})
    message = str(caught.value)
    within = name.endswith(("_ids", "_bias")) and "list" not in bound
    shown = next(x for x in value if x != 3) if within else value
    assert message.startswith(f"{name} ")
    assert repr(shown) in message
    assert bound in message
    assert "\n" not in message
    assert isinstance(caught.value, SambaYError)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0}, {"temperature": 1e6}, {"temperature": 1e-300}, {"top_p": 1}, {"top_p": 1e-9},
        {"min_p": 0}, {"min_p": 1}, {"top_k": -1}, {"top_k": 0}, {"top_k": 10**9}, {"n": 1024},
        {"presence_penalty": -2}, {"frequency_penalty": 2}, {"repetition_penalty": 1e-3}, {"max_tokens": None},
        {"max_tokens": 5, "min_tokens": 5}, {"logprobs": 0}, {"logprobs": 1000}, {"seed": -(2**63)},
        {"seed": 2**64 - 1}, {"stop": "x"}, {"stop": ("x", "y")}, {"stop": []}, {"stop_token_ids": ()},
    ],
)  # fmt: skip
def test_values_at_the_bounds_are_possible(values):
    params = SamplingParams(**values)
    assert all(getattr(params, name) == value for name, value in values.items())


def test_min_tokens_above_max_tokens():
    with pytest.raises(SamplingError, match="min_tokens is 6: it must not be above max_tokens 5"):
        SamplingParams(max_tokens=5, min_tokens=6)
    assert SamplingParams(max_tokens=None, min_tokens=6).min_tokens == 6


def test_stop_strings():
    assert SamplingParams().stop_strings == ()
    assert SamplingParams(stop="ab").stop_strings == ("ab",)
    assert SamplingParams(stop=["ab", "c"]).stop_strings == ("ab", "c")


def test_unknown_parameters_are_refused():
    with pytest.raises(TypeError, match="temprature"):
        SamplingParams(temprature=1)


def test_a_bias_beyond_the_bounds():
    for bias in (-100.1, 101, math.nan, True, "1", None):
        with pytest.raises(SamplingError, match=r"for token 7: it must be a number from -100 to 100"):
            SamplingParams(logit_bias={3: 1, 7: bias})
    with pytest.raises(SamplingError, match="it must be a mapping of token ids to numbers"):
        SamplingParams(logit_bias=[1])


def test_allowing_no_token_at_all():
    with pytest.raises(SamplingError, match="allowed_token_ids is empty: give at least one token, or None"):
        SamplingParams(allowed_token_ids=[])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "is empty: give exactly one of json, regex, choice, grammar, json_object"),
        ({"json_object": False}, "is empty"),
        ({"regex": "a", "choice": ["a"]}, "has regex and choice: give exactly one"),
        ({"json": 3}, "json is 3: it must be a JSON schema, as a mapping or as text"),
        ({"regex": ""}, "regex is '': it must be text that is not empty"),
        ({"grammar": 5}, "grammar is 5: it must be text"),
        ({"choice": "yes"}, "choice is 'yes': it must be a list of strings"),
        ({"choice": []}, "choice is []: it must be a list of strings"),
        ({"choice": ["a", ""]}, "none empty"),
        ({"json": {}, "whitespace_pattern": ""}, "whitespace_pattern is ''"),
    ],
)
def test_impossible_structures(values, message):
    with pytest.raises(SamplingError) as caught:
        StructuredOutputsParams(**values)
    assert message in str(caught.value)


def test_a_structure_ends_by_itself():
    with pytest.raises(SamplingError, match="ignore_eos cannot be with structured_outputs"):
        SamplingParams(ignore_eos=True, structured_outputs=StructuredOutputsParams(json_object=True))
