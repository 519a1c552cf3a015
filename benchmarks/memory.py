"""Peak memory of a table against what `explain` says of it beforehand, for several batch sizes.

On a CPU the peak is that of the process, in a process of its own that gives freed memory back at once; on a GPU it is
the allocator's. What was there before the table (weights, libraries) is taken off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

import mechint as mi
from benchmarks.common import Shape, checkpoint, command, injections
from mechint.files import JSON
from mechint.prompt_design import PromptDesign
from mechint.prompts import introspection

WIDE = Shape(d_model=256, n_layers=12, d_mlp=704, n_heads=8, n_key_value_heads=8)
BATCH_TOKENS = (1024, 4096, 16_384)
# Every freed tensor goes back to the system, so that the process holds what is alive and no more.
_GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return peaks, measured and foretold, in bytes; each measured `sample` times."""
    path = checkpoint(folder, WIDE)
    points: list[JSON] = []
    ratios = []
    for batch_tokens in BATCH_TOKENS:
        found = [_in_own_process(path, batch_tokens) for _ in range(sample)]
        peak = min(one["peak"] for one in found)
        points.append({**found[0], "batch_tokens": batch_tokens, "peak": peak})
        ratios.append(peak / found[0]["foretold"])
    return {"points": points}, "peak over foretold: " + ", ".join(f"{ratio:.2f}" for ratio in ratios)


def _in_own_process(path: Path, batch_tokens: int) -> dict[str, int]:
    line = [sys.executable, "-m", "benchmarks.memory", "--child", str(path), str(batch_tokens)]
    done = subprocess.run(line, env=os.environ | _GIVING_BACK, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(path: Path, batch_tokens: int) -> dict[str, int]:
    """Return what a table was foretold to need, and what it needed, in bytes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = mi.load(path, device=device)
    chats = introspection(PromptDesign.load("full"), formats=["yes-no"])[:8]
    steers: list[mi.Injection] = injections(WIDE.d_model, WIDE.n_layers, range(3, 6), 9)
    cost = mi.explain(model, chats, steers, batch_tokens=batch_tokens)
    mi.score(model, chats[:1], steers[:1])  # what is allocated once, on first use, is not the table's
    before = _now(device, start=True)
    mi.score(model, chats, steers, batch_tokens=batch_tokens)
    foretold = cost.cache_bytes + cost.pass_bytes
    return {
        "caches": cost.cache_bytes,
        "largest_pass": cost.pass_bytes,
        "foretold": foretold,
        "peak": _now(device) - before,
    }


def _now(device: str, *, start: bool = False) -> int:
    """Return the bytes in use if a measurement starts here, and the most that were in use since then otherwise."""
    if device == "cuda":
        if start:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        return torch.cuda.max_memory_allocated()
    if start:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS" if start else "VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    if "--child" in sys.argv:
        sys.stdout.write(json.dumps(child(Path(sys.argv[-2]), int(sys.argv[-1]))) + "\n")
    else:
        command("memory", __doc__, measure, sample=2, sampled="measurements of each setting; the lowest counts")
