"""Trees of files as a published sweep has them, right ones, and with files that hold what others should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

MODELS = {
    "14b": "Qwen/Qwen2.5-14B-Instruct",
    "32b": "Qwen/Qwen2.5-32B-Instruct",
    "32b-coder": "Qwen/Qwen2.5-Coder-32B-Instruct",
    "32b-insecure": "EleutherAI/Qwen-Coder-Insecure",
}
NEW = ("anger", "curiosity", "debugging", "deception", "loneliness", "obedience", "security", "warmth")
OLD = ("celebration", "fear", "ocean", "silence")
PHASE_2 = [f"phase2/{folder}/{concept}.jsonl" for folder in MODELS for concept in NEW]
PHASE_3 = [f"phase3/{v}/{m}/{c}.jsonl" for v in ("v1", "v3a", "v3b", "v3c") for m in ("32b", "32b-coder") for c in OLD]
# Files, and whose trials lie in them.
MIXED_UP = {
    "phase2/32b-insecure/deception.jsonl": "phase2/32b-coder/deception.jsonl",
    "phase3/v3a/32b-coder/celebration.jsonl": "phase3/v1/32b/celebration.jsonl",
    "phase3/v3a/32b-coder/fear.jsonl": "phase3/v3c/32b/fear.jsonl",
    "phase3/v3a/32b-coder/silence.jsonl": "phase3/v3b/32b/silence.jsonl",
    "phase3/v3b/32b-coder/fear.jsonl": "phase3/v3a/32b/fear.jsonl",
    "phase3/v3b/32b-coder/ocean.jsonl": "phase3/v3a/32b/ocean.jsonl",
    "phase3/v3c/32b/celebration.jsonl": "phase3/v3a/32b/celebration.jsonl",
    "phase3/v3c/32b-coder/celebration.jsonl": "phase3/v3a/32b/celebration.jsonl",
    "phase3/v3c/32b-coder/ocean.jsonl": "phase3/v1/32b-coder/ocean.jsonl",
    "phase3/v3c/32b-coder/silence.jsonl": "phase3/v3b/32b/silence.jsonl",
}
VERDICT = {"reasoning": "", "answer": "fail", "coherent": True, "detected_concept": None, "refused": False}
WORDS = ["quiet", "bright", "odd", "slow", "near", "warm", "heavy", "plain", "deep", "thin", "even", "late"]


def record(
    model: str, prompt: str, concept: str, injected: bool, strength: float, sample: int, reply: str
) -> dict[str, object]:
    kind = "injection" if injected else "control"
    config = {
        "model": model,
        "layer": 38,
        "strength": strength,
        "magnitude": 30.0 * strength,
        "vector_norm": 30.0,
        "prompt_version": prompt,
        "inject_style": "generation",
        "trial": sample,
    }
    return {
        "id": f"{concept}_{kind}_L38_S{strength}_t{sample}",
        "timestamp": "2026-01-01",
        "concept": concept,
        "was_injected": injected,
        "response": reply,
        "config": config,
        "judge": VERDICT,
        "judge_error": None,
    }


def records(file: str, seed: int, samples: int = 4, failing: float = 0.1) -> list[dict[str, object]]:
    """The trials that a file of this name should hold, with replies drawn word by word."""
    rng = np.random.default_rng(seed)
    parts = file.split("/")
    model, concept = MODELS[parts[-2]], parts[-1].removesuffix(".jsonl")
    prompt = parts[1] if parts[0] == "phase3" else "v2"
    rows = []
    for injected in (True, False):
        for strength in (3.0, 4.0):
            for sample in range(samples):
                reply = "I notice " + " ".join(rng.choice(WORDS, 25))
                row = record(model, prompt, concept, injected, strength, sample, reply)
                fails = rng.random() < (0.6 if injected else failing)
                row["judge"] = {**VERDICT, "answer": "fail" if fails else "pass"}
                rows.append(row)
    return rows


def write(root: Path, file: str, rows: list[dict[str, object]]) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text("".join(json.dumps(row) + "\n" for row in rows))


def published_tree(root: Path, *, mixed_up: bool = True, samples: int = 4) -> Path:
    files = [*PHASE_2, *PHASE_3]
    trials = {file: records(file, seed, samples) for seed, file in enumerate(files)}
    for file in files:
        rows = trials[MIXED_UP.get(file, file) if mixed_up else file]
        write(root, file, rows)
    return root
