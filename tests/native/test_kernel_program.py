"""`csrc/tests/kernel_test.cpp`, which compares every kernel of every instruction set with the portable one."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
KERNELS = len(re.findall(r"^    X\(", (CSRC / "kernel_table.h").read_text(), re.MULTILINE))
CROSS = "aarch64-linux-gnu-g++"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(
        shutil.which("cmake") is None or not (shutil.which("ninja") or shutil.which("make")),
        reason="no cmake with ninja or make here",
    ),
]


def configure(directory, *options):
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    command = ["cmake", *generator, "-S", CSRC, "-B", directory, "-DSAMBAY_MODULE=OFF", "-DSAMBAY_TESTS=ON", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def program(directory):
    command = ["cmake", "--build", directory, "--target", "kernel_test", "--parallel", "2"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=2400)
    assert made.returncode == 0, made.stdout + made.stderr
    return directory / "kernel_test"


def compared(command, **environment):
    """Runs it; the number of kernels that were compared, by instruction set."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=os.environ | environment)
    assert (done.returncode, done.stderr) == (0, "")
    return {isa: int(count) for isa, count in re.findall(r"^(\w+): (\d+) kernels", done.stdout, re.MULTILINE)}


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("c++") is None, reason="no compiler here")
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_kernels_under_a_sanitizer(sanitizer, tmp_path):
    source = tmp_path / "empty.cpp"
    source.write_text("int main() {}\n")
    compiler = shutil.which("g++") or shutil.which("c++")
    tried = subprocess.run(
        [compiler, f"-fsanitize={sanitizer}", source, "-o", tmp_path / "empty"], capture_output=True, timeout=280
    )
    if tried.returncode:
        pytest.skip(f"this compiler has no sanitizer for {sanitizer}")
    said = configure(tmp_path / "build", f"-DSAMBAY_SANITIZE={sanitizer}", f"-DCMAKE_CXX_COMPILER={compiler}")
    found = compared([program(tmp_path / "build")])
    assert found["portable"] == KERNELS
    if "avx512" in found and "no amx kernels" not in said:
        # byte_products, linear and mlp; a CPU without tiles traps, and the program emulates them.
        assert found["amx"] == 3


@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"no {CROSS} here (apt install g++-aarch64-linux-gnu)")
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="no qemu-aarch64 here (apt install qemu-user)")
def test_kernels_for_arm(tmp_path):
    configure(
        tmp_path, "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={CROSS}",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )  # fmt: skip
    built = program(tmp_path)
    assert compared(["qemu-aarch64", "-cpu", "max", built]) == {"portable": KERNELS, "neon": KERNELS}
    # A CPU of Armv8.0 has no dot product: it is told so, and runs the portable kernels.
    assert compared(["qemu-aarch64", "-cpu", "cortex-a57", built, "linear"]) == {"portable": 1}
