"""What is built: sdist and wheels, with and without a compiler, and the object files of the kernels."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
COMPILER = shutil.which("g++") or shutil.which("c++")


def backend(call, directory, **environment):
    """Run a hook of the build backend on a copy of the sources; the name that it returns, and what it printed."""
    code = f"import sys, scikit_build_core.build as build\nprint('\\n' + build.{call})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=os.environ | environment, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


@pytest.fixture
def sources(tmp_path):
    pytest.importorskip("scikit_build_core")
    copy = tmp_path / "sources"
    keep = ("src", "csrc", "recipes", "docs", "pyproject.toml", "README.md", "ARCHITECTURE.md", "CHANGELOG.md")
    copy.mkdir()
    for name in (*keep, "LICENSE", ".gitignore", "CONTRIBUTING.md", "constraints.txt", "Makefile"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "CMake*[!.txt]"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def test_sdist(sources, tmp_path):
    (sources / "src/sambay/ops/_native.abi3.so").write_bytes(b"left by an editable install")
    name, _ = backend(f"build_sdist({str(tmp_path)!r})", sources)
    with tarfile.open(tmp_path / name) as archive:
        names = {one.partition("/")[2] for one in archive.getnames()}
    # An editable install builds in csrc: what CMake made there is not ours.
    ours = [path for path in (*CSRC.rglob("*.cpp"), *CSRC.rglob("*.h")) if "CMakeFiles" not in path.parts]
    for path in (*ours, CSRC / "CMakeLists.txt"):
        assert path.relative_to(ROOT).as_posix() in names
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "recipes").iterdir()):
        if path.is_file():
            assert path.relative_to(ROOT).as_posix() in names
    assert {"src/sambay/assets/tutor/model.safetensors", "src/sambay/py.typed", "src/sambay/ops/_native.pyi"} <= names
    assert {"LICENSE", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt"} <= names
    assert not [one for one in names if one.endswith((".so", ".o", ".a")) or "CMakeCache" in one or "/.ci" in one]


def test_wheel_without_a_compiler(sources, tmp_path):
    """Hidden twice: none on the path, and the one that is asked for fails."""
    tools = [found for name in ("cmake", "ninja", "make") if (found := shutil.which(name))]
    if len(tools) < 2:
        pytest.skip("no cmake with ninja or make here; pip would bring them")
    (sources / "src/sambay/ops/_native.abi3.so").write_bytes(b"left by an editable install")
    path = tmp_path / "path"
    path.mkdir()
    for tool in tools:
        (path / Path(tool).name).symlink_to(tool)
    hidden = {"PATH": str(path), "CC": "/bin/false", "CXX": "/bin/false"}
    name, said = backend(f"build_wheel({str(tmp_path)!r})", sources, **hidden)
    assert name.endswith("-py3-none-any.whl")
    assert "compiled kernels could not be built" in said
    with zipfile.ZipFile(tmp_path / name) as archive:
        names = set(archive.namelist())
    assert {"sambay/ops/native.py", "sambay/assets/tutor/model.safetensors", "sambay/py.typed"} <= names
    assert not [one for one in names if one.endswith(".so") or "csrc" in one]


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no compiler here")
@pytest.mark.parametrize("sanitizer", [None, "thread"])
def test_the_thread_pool(sanitizer, tmp_path):
    program = tmp_path / "pool_test"
    files = [str(CSRC / name) for name in ("tests/pool_test.cpp", "pool.cpp", "cores.cpp")]
    command = [COMPILER, "-std=c++20", "-O1", "-pthread", f"-I{CSRC}", *files, "-o", str(program)]
    if sanitizer:
        command += ["-g", f"-fsanitize={sanitizer}"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=280)
    if sanitizer and made.returncode:
        pytest.skip("this compiler has no thread sanitizer")
    assert made.returncode == 0, made.stderr
    arguments = ["without fork"] if sanitizer else []
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here")
def test_no_function_is_shared_between_instruction_sets():
    """Of two inline functions of one name the linker keeps one, and that may be one which this CPU cannot run."""
    objects = sorted(CSRC.glob("CMakeFiles/*.dir/**/*.o"))
    if not [one for one in objects if "isa_" in str(one)]:
        pytest.skip("there are object files only where sambay was installed with `pip install -e .` and a compiler")
    owners = defaultdict(set)
    for path in objects:
        listing = subprocess.run(["nm", "-C", "--defined-only", path], capture_output=True, text=True, check=True)
        for line in listing.stdout.splitlines():
            _, kind, name = line.split(maxsplit=2)
            # DW.ref.NAME is a pointer to NAME for those who unwind, the same in all of them, and no function.
            if kind in "WVuT" and not name.startswith("DW.ref."):
                owners[name].add(path.name)
    shared = {name: files for name, files in owners.items() if len(files) > 1}
    assert {name: files for name, files in shared.items() if any("isa_" in one for one in files)} == {}
