"""Whatever is wrong with the input: not 0, one line that says it, and never a traceback."""

import json

import pytest
from safetensors.torch import load_file, save_file


def damage_config(copy, **changes):
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(copy):
    return copy / "model.safetensors"


def corrupt(copy):
    data = bytearray(weights(copy).read_bytes())
    data[0:16] = b"\xff" * 16
    weights(copy).write_bytes(data)


def truncate(copy):
    weights(copy).write_bytes(weights(copy).read_bytes()[:-1000])


def drop_tensor(copy):
    tensors = load_file(weights(copy))
    del tensors["model.layers.3.mlp.fc1.weight"]
    save_file(tensors, weights(copy))


DAMAGES = {
    "corrupt": (corrupt, "truncated or damaged"),
    "truncated": (truncate, "truncated or damaged"),
    "empty": (lambda copy: weights(copy).write_bytes(b""), "truncated or damaged"),
    "no weights": (lambda copy: weights(copy).unlink(), "holds neither model.safetensors"),
    "missing tensor": (drop_tensor, "model.layers.3.mlp.fc1.weight"),
    "config": (lambda copy: damage_config(copy, num_hidden_layers=7), "num_hidden_layers is 7"),
    "other kind": (lambda copy: damage_config(copy, model_type="llama"), "model_type is 'llama'"),
    "config not JSON": (lambda copy: (copy / "config.json").write_text("{"), "cannot be read as JSON"),
    "misshapen": (lambda copy: damage_config(copy, intermediate_size=96), "misshapen"),
    "tokenizer": (lambda copy: (copy / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
    "small vocabulary": (lambda copy: damage_config(copy, vocab_size=100), "misshapen"),
}


def check(result, words, status=1):
    assert result.status == status
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert words in result.err


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint(sambay, copy, name):
    damage, words = DAMAGES[name]
    damage(copy)
    check(sambay("generate", copy, "-p", "hi", "--max-tokens", "1"), words)


@pytest.mark.parametrize("name", ["corrupt", "truncated", "no weights", "config", "tokenizer"])
def test_info_sees_damage_without_loading(sambay, copy, name):
    damage, words = DAMAGES[name]
    damage(copy)
    check(sambay("info", copy), words)


@pytest.mark.parametrize("command", [["generate", "-p", "x"], ["chat"], ["info"], ["eval"]])
def test_no_such_model(sambay, tmp_path, command):
    check(sambay(*command, tmp_path / "nope"), "does not exist")
    check(sambay(*command, "not a name"), "neither an existing directory nor a hub name")
    check(sambay(*command, tmp_path), "holds no config.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "-0.5"], "temperature is -0.5"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--top-p", "0"], "top_p is 0.0"),
        (["--top-p", "1.5"], "top_p is 1.5"),
        (["--top-k", "-2"], "top_k is -2"),
        (["--min-p", "2"], "min_p is 2.0"),
        (["--repetition-penalty", "0"], "repetition_penalty is 0.0"),
        (["--max-tokens", "0"], "max_tokens is 0"),
        (["--seed", str(2**64)], "seed is 18446744073709551616"),
        (["-n", "0"], "n is 0"),
        (["--stop", ""], "stop is ['']"),
        (["--json", "--logprobs", "-1"], "logprobs is -1"),
        (["--max-thinking-tokens", "-1"], "max_thinking_tokens is -1"),
        (["--regex", "a("], "regex a( cannot be used: unclosed group"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--dtype", "int4"], "dtype is 'int4'"),
        (["--max-model-len", "0"], "max_model_len is 0"),
        (["--max-model-len", "9999"], "max_model_len is 9999"),
        (["--max-model-len", "3"], "shorten the prompt"),
    ],
)
def test_impossible_values(sambay, checkpoint, arguments, words):
    check(sambay("generate", checkpoint, "-p", "What is 3 + 4?", *arguments), words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "-p", "x", "--nonsense"], "No such option"),
        (["generate", "-p", "x", "--temperature", "hot"], "--temperature"),
        (["generate", "-p", "x", "--threads", "0"], "--threads"),
        (["generate", "-p", "x", "--logprobs", "1"], "--json"),
        (["generate", "-p", "x", "--ids", "1"], "--ids is the whole prompt"),
        (["generate", "-p", "x", "--raw", "--system", "y"], "--system"),
        (["generate", "-p", "x", "--raw", "--no-thinking"], "use --max-thinking-tokens 0"),
        (["generate", "--ids", "1", "--no-thinking"], "use --max-thinking-tokens 0"),
        (["generate", "-p", "x", "--regex", "a", "--json-schema", "b"], "give one of them"),
        (["batch", "x.jsonl"], "--output"),
        (["generat"], "No such command 'generat'"),
        (["train"], "Missing argument"),
        (["train", "x.toml"], "--output"),
        (["eval", "--problems", "0"], "--problems"),
        (["chat", "a", "b"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(sambay, arguments, words):
    check(sambay(*arguments), words, status=2)


def test_prompts_that_are_none(sambay, checkpoint, wordless, monkeypatch):
    for prompt in ("", "  \n\t"):
        check(sambay("generate", checkpoint, "-p", prompt), "the prompt is empty")
        check(sambay("generate", checkpoint, stdin=prompt), "the prompt is empty")
        check(sambay("generate", checkpoint, "--raw", "-p", prompt), "the prompt is empty")
    check(sambay("generate", checkpoint, "-p", "word " * 3000), "the context holds 4096")
    check(sambay("generate", checkpoint, "--ids", "1 two"), "--ids has 'two'")
    check(sambay("generate", checkpoint, "--ids", ""), "--ids has ''")
    check(sambay("generate", checkpoint, "--ids", "1,-2"), "--ids has '-2'")
    check(sambay("generate", checkpoint, "--ids", "1,512"), "token id 512")
    check(sambay("generate", wordless, "-p", "x"), "has no tokenizer.json")
    check(sambay("generate", wordless, "-p", "x", "--system", "y"), "no chat template")
    check(sambay("generate", wordless, "--ids", "1", "--stop", "x"), "stop strings need a tokenizer")
    check(sambay("generate", wordless, "--ids", "1", "--max-thinking-tokens", "3"), "needs a tokenizer")
    check(sambay("chat", wordless), "has no chat template")
    check(sambay("eval", wordless, "--problems", "1"), "has no tokenizer")


def test_a_schema_that_is_none(sambay, checkpoint, tmp_path):
    pytest.importorskip("llguidance")
    path = tmp_path / "schema.json"
    for content, words in (
        (b"{", "cannot be used: Expecting property name"),
        (b"[]", "a JSON schema is an object"),
        (b'{"type": "foo"}', "Invalid type: foo"),
        (b"\xff", "is no text in UTF-8"),
    ):
        path.write_bytes(content)
        check(sambay("generate", checkpoint, "-p", "hi", "--json-schema", path), words)
    check(sambay("generate", checkpoint, "-p", "hi", "--json-schema", tmp_path / "nope"), "No such file or directory")


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize("stdin", [b"caf\xe9", b"\xff\xfe", b"\x80\n"])
def test_standard_input_that_is_no_text(sambay, checkpoint, command, stdin):
    byte = next(byte for byte in stdin if byte > 127)
    words = f"standard input has the byte 0x{byte:02x}, which is not UTF-8: convert it first, such as with iconv"
    check(sambay(command, checkpoint, stdin=stdin), words, status=2)


def test_the_device_error_names_what_is_here(sambay, checkpoint):
    for device in ("abacus", "vulkan", "cuda:99"):
        result = sambay("generate", checkpoint, "-p", "x", "--device", device)
        check(result, f"device '{device}' cannot be used (")
        assert "it must be one of auto, cpu" in result.err
        assert "opengl" not in result.err


def test_eval_options(sambay, checkpoint, tmp_path):
    check(sambay("eval", checkpoint, "--families", "algebra"), "there is no family 'algebra'")
    check(sambay("eval", checkpoint, "--output", tmp_path / "no" / "x.jsonl"), "no such directory")
    check(sambay("eval", checkpoint, "-o", tmp_path), "is a directory")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("log_every", "log_evry", "[run] has an unknown key 'log_evry'"),
        ("[schedule]", "[nonsense]", "[nonsense]"),
        ("hidden_size", "hiden_size", "'hiden_size'"),
        ("hidden_size = 16", "", "lacks hidden_size"),
        ("num_hidden_layers = 4", "num_hidden_layers = 5", "num_hidden_layers is 5"),
        ("steps = 6", "steps = 0", "schedule.steps is 0"),
        ("steps = 6", "steps = 'many'", "schedule.steps is 'many'"),
        ("steps = 6", "steps =", "cannot be read as TOML"),
        ("[data]", "[data]\nfamilies = {algebra = 1.0}", "'algebra'"),
        ("[data]", "[data]\nfamilies = {fractions = 'some'}", "data.families.fractions is 'some'"),
        ("[data]", "[data]\nfamilies = {fractions = 0}", "data.families are all 0"),
    ],
)
def test_bad_recipes(sambay, recipe, tmp_path, before, after, words):
    text = recipe.read_text()
    assert before in text
    recipe.write_text(text.replace(before, after))
    check(sambay("train", recipe, "-o", tmp_path / "run"), words)
    assert not (tmp_path / "run").exists()


def test_no_recipe(sambay, tmp_path):
    check(sambay("train", tmp_path / "nope.toml", "-o", tmp_path / "run"), "nope.toml does not exist")
    words = f"{tmp_path} is a directory: give a recipe, a TOML file such as recipes/tutor.toml"
    check(sambay("train", tmp_path, "-o", tmp_path / "run"), words)


def test_a_run_into_a_file(sambay, recipe, tmp_path):
    path = tmp_path / "taken"
    path.touch()
    words = f"{path} is a file: give a directory for the run, such as -o runs/recipe"
    check(sambay("train", recipe, "-o", path), words)
    check(sambay("train", recipe, "-o", path, "--resume"), words)
