"""Compiles the kernels that read attention's pages, at the shape of Moshi 7B, for devices that need not be there, and
prints what has become of the larger one, a line for each: ``python compiled_pages.py 90 bfloat16 80 float8``.

A program of its own, for in a test's process triton may interpret. It wants triton alone, and the tools in its wheel.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rtc_server.models.kyutai import page_kernel

WIDTH, HEADS, PLACES, FRAMES, SPLITS = 128, 32, 47, 64, 4
POINTERS = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16", "float8": "*u8"}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def compiled(kernel: Any, signature: dict[str, str], constants: dict[str, Any], capability: int) -> bytes:
    """Pointers are aligned as torch allocates."""
    aligned = {
        (number,): [["tt.divisibility", 16]] for number, kind in enumerate(signature.values()) if kind.startswith("*")
    }
    kinds = signature | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature=kinds, constexprs=constants, attrs=aligned)
    options = {"num_warps": page_kernel._WARPS, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin: bytes = made.asm["cubin"]
    return cubin


def read_parts(capability: int, stored: str) -> bytes:
    dtype = torch.uint8 if stored == "float8" else getattr(torch, stored)
    queries = "*fp32" if stored == "float32" else "*fp16" if stored == "float16" else "*bf16"
    signature = {
        "queries": queries,
        "cache": POINTERS[stored],
        "pages": "*i64",
        "since": "*i64",
        "last": "*i64",
        "least": "*i64",
    }
    signature |= {"mixtures": "*fp32", "weights": "*fp32", "count": "i32", "scale": "fp32"}
    constants = {
        "CAPACITY": 3000,
        "PLACES": PLACES,
        "FRAMES": FRAMES,
        "WIDTH": WIDTH,
        "PADDED": WIDTH,
        "HEADS": HEADS,
        "REPEAT": 1,
        "STRIDE": 2 * HEADS * WIDTH,
        "LANES": page_kernel.lanes(FRAMES),
        "SPLITS": SPLITS,
        "KIND": page_kernel.kind_of(dtype, divmod(capability, 10)),
    }
    return compiled(page_kernel.read_parts, signature, constants, capability)


def join_parts(capability: int) -> bytes:
    signature = {"mixtures": "*fp32", "weights": "*fp32", "found": "*bf16"}
    constants = {"WIDTH": WIDTH, "PADDED": WIDTH, "SPLITS": SPLITS, "PARTS": SPLITS}
    return compiled(page_kernel.join_parts, signature, constants, capability)


def tool(name: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def loop_of(assembly: str) -> list[str]:
    """The instructions of the longest way back to a label."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    longest: list[str] = []
    for line in assembly.splitlines():
        if label := re.match(r"^(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"^\s+/\*[0-9a-f]+\*/\s+(.*?);", line):
            instructions.append(found[1])
            back = re.search(r"BRA.*`\((\.L_x_\d+)\)", found[1])
            body = instructions[labels[back[1]] :] if back and back[1] in labels else []
            longest = max(longest, body, key=len)
    return longest


def figures(capability: int, stored: str) -> dict[str, int]:
    """Of the larger kernel."""
    join_parts(capability)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(read_parts(capability, stored))
        file.flush()
        resources = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", tool("cuobjdump", "-res-usage", file.name))
        loop = loop_of(tool("nvdisasm", "-c", file.name))
    assert resources is not None
    registers, stack, local = map(int, resources.groups())
    wide = sum("LDG.E.128" in instruction for instruction in loop)
    waits = sum("BAR." in instruction for instruction in loop)
    found = {"registers": registers, "spilled": stack + local, "wide_loads": wide, "waits_in_loop": waits}
    return {**found, "loop": len(loop)}


def main() -> None:
    for capability, stored in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        found = figures(int(capability), stored)
        sys.stdout.write(" ".join(f"{name}={count}" for name, count in found.items()) + "\n")


if __name__ == "__main__":
    main()
