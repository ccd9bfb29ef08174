"""The package as a whole: what it exports, how its parts depend on each other, and the rules of the house."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import sambay

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sambay"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = {path: ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for path in FILES}

# From the ground up; a part imports only from lower floors (and from itself).
FLOORS = [
    {"errors", "_version", "progress", "recent"},
    {"hub", "kv"},
    {"config", "streaming", "files", "batch"},
    {"tokenizer", "state", "checkpoint", "checksums"},
    {"ops"},
    {"layers"},
    {"quant"},
    {"model"},
    {"engine", "data", "quant.calibrate"},
    {"protocols", "tutor"},
    {"hf", "train", "eval", "server", "quant.convert", "quant.measure"},
    {"bench"},
    {"cli"},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# `sambay` itself is a list of names that are looked up when they are used; these have no place in the house.
ROOFLESS = {"__init__", "__main__", "_autoregister"}
# Side by side, and still allowed.
NEIGHBOURS: set[tuple[str, str]] = set()


def part_of(module):
    """The part of the house that a module is in; a few modules live on another floor than their package."""
    return module if module in FLOOR else module.partition(".")[0]


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Every module of ours that a file imports, in functions and for type checking too, without `sambay.`."""
    modules = {NAMES[one] for one in FILES}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition("sambay.")[2] for alias in node.names if alias.name.startswith("sambay."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if node.module == "sambay":
                yield from (alias.name if alias.name in modules else "__init__" for alias in node.names)
            elif node.module.startswith("sambay."):
                yield node.module.removeprefix("sambay.")


def test_imports_point_down():
    wrong = []
    for path in FILES:
        part = part_of(NAMES[path])
        if part in ROOFLESS:
            continue
        assert part in FLOOR, f"{path}: give {part} a floor in this test"
        for module in imports(path):
            other = part_of(module)
            if other in ROOFLESS and (part, other) in {("hf", "_autoregister")}:
                continue
            if other != part and FLOOR.get(other, 99) >= FLOOR[part] and (part, other) not in NEIGHBOURS:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


@pytest.mark.parametrize(
    ("leaf", "allowed"),
    [
        ("errors", set()),
        ("progress", set()),
        ("recent", set()),
        ("_version", set()),
        ("streaming", {"errors"}),
        ("files", {"errors"}),
        ("checksums", {"errors", "files"}),
        ("config", {"errors", "hub"}),
        ("tokenizer", {"errors", "files", "streaming"}),
    ],
)
def test_leaves(leaf, allowed):
    assert set(imports(SOURCE / f"{leaf}.py")) <= allowed


def test_all():
    assert sambay.__all__ == sorted(set(sambay.__all__), key=lambda name: (not name.isupper(), name.islower(), name))
    assert set(dir(sambay)) == set(sambay.__all__)
    for name in sambay.__all__:
        assert getattr(sambay, name) is not None
    with pytest.raises(AttributeError, match="module 'sambay' has no attribute 'nonsense'"):
        _ = sambay.nonsense


@pytest.mark.parametrize("path", FILES, ids=lambda path: NAMES[path] or "sambay")
def test_every_name_in_all_exists(path):
    name = "sambay." + NAMES[path] if NAMES[path] != "__init__" else "sambay"
    if name.endswith("__main__"):
        return
    if name.startswith("sambay.hf"):
        pytest.importorskip("transformers")
    if name == "sambay.tutor.worker":
        pytest.importorskip("math_verify")
    module = importlib.import_module(name)
    for exported in getattr(module, "__all__", ()):
        assert hasattr(module, exported), exported


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import sambay; sambay.__version__; dir(sambay)", ("torch", "transformers", "tokenizers", "rich", "numpy")),
        ("import sambay.errors, sambay.config, sambay.files, sambay.progress", ("torch", "transformers")),
        ("import sambay.tokenizer", ("torch", "transformers")),
        ("import sambay.cli", ("torch", "transformers")),
        ("from sambay import LLM", ("transformers", "peft", "matplotlib")),
        ("import sambay.train.trainer", ("transformers", "peft", "matplotlib")),
    ],
)
def test_what_is_not_imported(statement, absent):
    code = f"{statement}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def undocumented(path):
    """Public functions, classes and methods without a docstring, and the module itself."""

    def visit(node, where):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if child.name.startswith("_") or _is_overload(child):
                    continue
                if ast.get_docstring(child) is None:
                    yield f"{where}.{child.name}"
                if isinstance(child, ast.ClassDef):
                    yield from visit(child, f"{where}.{child.name}")

    tree = parsed(path)
    if ast.get_docstring(tree) is None:
        yield NAMES[path]
    yield from visit(tree, NAMES[path])


def _is_overload(node):
    return any(isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list)


def test_everything_public_is_documented():
    assert [name for path in FILES for name in undocumented(path)] == []


def test_files_are_of_a_size_to_be_read():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 600} == {}


def test_version_and_typing():
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if "version" in project["project"]:
        assert sambay.__version__ == project["project"]["version"]
    else:  # read from the one place where it is written
        assert project["project"]["dynamic"] == ["version"]
        path = ROOT / project["tool"]["scikit-build"]["metadata"]["version"]["input"]
        assert f'__version__ = "{sambay.__version__}"' in path.read_text(encoding="utf-8")
    assert project["tool"]["scikit-build"]["wheel"]["packages"] == ["src/sambay"]
    assert (SOURCE / "py.typed").exists()
    entry = project["project"]["scripts"]["sambay"]
    module, _, function = entry.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
