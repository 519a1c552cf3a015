"""Peak memory of a table against what `explain` says of it beforehand, for several batch sizes and limits.

On a CPU the peak is that of the process, in a process of its own that gives freed memory back at once; on a GPU it is
the allocator's. What was there before the table (weights, libraries) is taken off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import mechint as mi
from benchmarks.common import Shape, checkpoint, command, injections
from mechint.base.files import JSON
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import introspection

WIDE = Shape(d_model=256, n_layers=12, d_mlp=704, n_heads=8, n_key_value_heads=8)
BATCH_TOKENS = (1024, 4096, 16_384)
# A sweep over layers, whose caches would take several times as much if all of them stood at once.
ALLOWED = ("800MB", "1200MB")
# Every freed tensor goes back to the system, so that the process holds what is alive and no more.
_GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Setting:
    """A table to measure: some vectors in some layers, or if `allowed` is given a sweep within so much memory."""

    batch_tokens: int
    allowed: str | None = None


SETTINGS = (*map(Setting, BATCH_TOKENS), *(Setting(BATCH_TOKENS[0], allowed) for allowed in ALLOWED))


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return peaks, measured and foretold, in bytes; each measured `sample` times."""
    path = checkpoint(folder, WIDE)
    points: list[JSON] = []
    ratios = []
    for number, setting in enumerate(SETTINGS):
        runs = [_in_own_process(path, number) for _ in range(sample)]
        peak = min(run["peak"] for run in runs)
        points.append({**runs[0], "batch_tokens": setting.batch_tokens, "allowed": setting.allowed, "peak": peak})
        ratios.append(peak / runs[0]["foretold"])
    return {"points": points}, "peak over foretold: " + ", ".join(f"{ratio:.2f}" for ratio in ratios)


def _in_own_process(path: Path, setting: int) -> dict[str, int]:
    line = [sys.executable, "-m", "benchmarks.memory", "--child", str(path), str(setting)]
    done = subprocess.run(line, env=os.environ | _GIVING_BACK, capture_output=True, text=True, check=True)
    peaks: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return peaks


def child(path: Path, setting: Setting) -> dict[str, int]:
    """Return the forecast and the measured peak of a table, and the peak of the process, in bytes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = mi.load(path, device=device)
    chats = introspection(PromptDesign.load("full"), formats=["yes-no"])[:8]
    if setting.allowed:
        chats = chats[:2]
    steers = _sweep() if setting.allowed else injections(WIDE.d_model, WIDE.n_layers, range(3, 6), 9)
    mi.score(model, chats[:1], steers[:1])  # what is allocated once, on first use, is not the table's
    cost = mi.explain(model, chats, steers, batch_tokens=setting.batch_tokens, max_memory=setting.allowed)
    before = _now(device, start=True)
    mi.score(model, chats, steers, batch_tokens=setting.batch_tokens, max_memory=setting.allowed)
    return {
        "caches": cost.cache_bytes,
        "largest_pass": cost.pass_bytes,
        "foretold": cost.peak_bytes,
        "peak": _now(device) - before,
        "held": _now(device),
    }


def _sweep() -> list[mi.Injection]:
    """Return four vectors at every layer, and at every window of four layers."""
    n_layers = WIDE.n_layers
    placements = [range(n, n + 1) for n in range(n_layers)] + [range(n, n + 4) for n in range(n_layers - 3)]
    return [
        replace(injection, name=f"{injection.name} {layers}")
        for layers in placements
        for injection in injections(WIDE.d_model, n_layers, layers, 4)
    ]


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
        sys.stdout.write(json.dumps(child(Path(sys.argv[-2]), SETTINGS[int(sys.argv[-1])])) + "\n")
    else:
        command("memory", __doc__, measure, sample=2, sampled="measurements of each setting; the lowest counts")
