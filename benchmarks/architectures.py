"""Compare every architecture and chat template that can be had offline with plain Hugging Face: docs/models.md.

Tiny random checkpoints are loaded as a user's would be. A worker process measures them, so that one that ends the
process does not end the run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import mechint as mi
from benchmarks.architecture_rows import Row, rows
from benchmarks.chat_templates import check, sources
from benchmarks.common import RESULTS
from mechint.base.errors import MechintError
from mechint.base.files import JSON, write_atomically
from mechint.models.backends.versions import installed
from mechint.organisms import organism_path

if TYPE_CHECKING:
    from benchmarks.exactness import Subject
    from benchmarks.plain import Plain

EXACT, REFUSED, WRONG, NOT_TRIED = "exact", "refused", "wrong", "not tried"
# Of the logits' spread, in float32.
TOLERANCE = 1e-4
_LONGEST_REASON = 260


@dataclass(frozen=True)
class Outcome:
    """A measured row: differences to plain Hugging Face in logits by way of computing, or the reason for none."""

    label: str
    model_type: str
    group: str
    status: str
    differences: dict[str, float] = field(default_factory=dict)
    spread: float = 1.0
    why: str = ""
    adapter_why: str = ""


class ElsewhereError(Exception):
    """Something that is not the toolkit's went wrong: there is nothing to compare with."""


class TracebackError(Exception):
    """An exception that a user would see as a traceback instead of one message."""


def measure(row: Row) -> Outcome:
    """Return the outcome of a row's checkpoint; errors of all kinds are outcomes."""
    name = (row.label, row.model_type, row.group)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model")
        try:
            with _looked_at():
                return _compared(row, path)
        except ElsewhereError as error:
            return Outcome(*name, NOT_TRIED, why=_in_short(error, path))
        except MechintError as error:
            return Outcome(*name, REFUSED, why=_reason(error, path))
        except TracebackError as error:
            return Outcome(*name, WRONG, why=_in_short(error, path))


def _compared(row: Row, path: Path) -> Outcome:
    from benchmarks.exactness import Subject, differences

    written(row, path)
    model = mi.load(path)
    subject = Subject(model, _plain(path))
    _truth(subject)
    shares = {way: share * subject.spread for way, share in differences(subject).items()}
    refused = ""
    try:
        shares["LoRA"] = _adapted(subject, path)
    except MechintError as error:
        refused = _reason(error, path)
    except ElsewhereError as error:
        refused = f"PEFT: {error}"
    off = {way: value for way, value in shares.items() if not value <= TOLERANCE * subject.spread}
    why = "" if not off else f"differs from plain Hugging Face: {', '.join(off)}"
    status = WRONG if off else EXACT
    return Outcome(row.label, row.model_type, row.group, status, shares, subject.spread, why, refused)


def written(row: Row, path: Path) -> Path:
    """Write the checkpoint of a row."""
    from benchmarks.tiny_models import tiny_config, tiny_model, write_checkpoint

    with _elsewhere("a small model cannot be made"):
        return write_checkpoint(path, tiny_model(tiny_config(row.model_type, row.settings)))


def _plain(path: Path) -> Plain:
    from transformers import AutoConfig

    from benchmarks.plain import Plain
    from benchmarks.tiny_models import whole_class

    kind = whole_class(AutoConfig.from_pretrained(path))
    return Plain(kind.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval())


def _truth(subject: Subject) -> None:
    with _elsewhere("plain Hugging Face cannot be read layer by layer"):
        _ = subject.truth


def _adapted(subject: Subject, path: Path) -> float:
    """Return the difference of a merged LoRA of every linear map to PEFT's own, unmerged, in logits."""
    from peft import LoraConfig, get_peft_model

    from benchmarks.exactness import chats
    from benchmarks.plain import Plain

    adapter, (yes, no) = path.parent / "adapter", [_id(subject.model, text) for text in (" yes", " no")]
    with _elsewhere("no LoRA can be made"):
        torch.manual_seed(1)
        config = LoraConfig(r=2, lora_alpha=1, target_modules="all-linear", init_lora_weights=False)
        wrapped = get_peft_model(subject.plain.model, config)
        wrapped.save_pretrained(adapter)
        plain = Plain(wrapped.get_base_model().eval())
        truth = [plain.logits(item.tokens) for item in subject.rendered]
    table = mi.score(mi.load(path, adapter=adapter), chats(), [mi.CLEAN])
    read = zip(table.logit_yes, table.logit_no, truth, strict=True)
    return max(max(abs(float(y) - float(t[yes])), abs(float(n) - float(t[no]))) for y, n, t in read)


def _id(model: mi.Model, text: str) -> int:
    return int(model.tokenizer.encode(text, add_special_tokens=False)[0])


@contextmanager
def _looked_at() -> Iterator[None]:
    """Turn every exception that is no error of the toolkit into `TracebackError`."""
    try:
        yield
    except (MechintError, ElsewhereError):
        raise
    except Exception as error:
        raise TracebackError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _elsewhere(doing: str) -> Iterator[None]:
    """Turn every exception of transformers and PEFT into `ElsewhereError`."""
    try:
        yield
    except Exception as error:  # transformers and PEFT make of a configuration what they can
        first = next(iter(str(error).strip().splitlines()), "")
        raise ElsewhereError(f"{doing}: {type(error).__name__}: {first}") from error


def _reason(error: MechintError, path: Path) -> str:
    allowed = "" if type(error).__name__ == "ModelValidationError" else f"; allowed: {error.allowed}"
    return _in_short(Exception(f"{error.given}{allowed}"), path)


def _in_short(error: Exception, path: Path) -> str:
    """Return an error's words without the places of this machine."""
    lines = " ".join(str(error).split())
    for place in (str(path), str(path.parent)):
        lines = lines.replace(place, "it")
    return lines[:_LONGEST_REASON]


def outcomes(to_measure: Iterable[Row]) -> Iterator[Outcome]:
    """Yield the outcome of each row, measured in a process that is made anew when it ends."""
    pool: ProcessPoolExecutor | None = None
    for row in to_measure:
        pool = pool or ProcessPoolExecutor(1, get_context("spawn"), _quiet)
        try:
            yield pool.submit(measure, row).result()
        except BrokenProcessPool:
            pool = None
            yield Outcome(row.label, row.model_type, row.group, NOT_TRIED, why="its process ended")
    if pool is not None:
        pool.shutdown()


def _quiet() -> None:
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def templates() -> list[JSON]:
    """Return the status of the standard conversation in each chat template, with thinking on and off."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    tokenizer.bos_token = tokenizer.eos_token  # some templates begin with it
    statuses: list[JSON] = []
    for name, source in sources().items():
        for thinking in (False, True):
            outcome = check(tokenizer, name, source, thinking)
            status = EXACT if outcome.complete else WRONG if outcome.rendered else REFUSED
            statuses.append({"template": name, "thinking": thinking, "status": status, "why": outcome.refused})
    return statuses


def result(measured: Iterable[Outcome], seconds: float) -> dict[str, JSON]:
    """Return the content of the page: versions, outcomes of rows and of chat templates."""
    names = ("transformers", "transformer-lens", "peft", "torch")
    versions: dict[str, JSON] = {name: installed(name) for name in names}
    lines: list[JSON] = [asdict(outcome) for outcome in measured]
    return {"versions": versions, "seconds": round(seconds), "rows": lines, "templates": templates()}


def main() -> None:
    """Measure all rows and templates, and write the result and the page."""
    from benchmarks import models_page

    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ROW", help="measure these rows and write nothing")
    only = parser.parse_args().only
    os.environ["HF_HUB_OFFLINE"] = os.environ["OMP_NUM_THREADS"] = "1"
    began, measured = time.perf_counter(), []
    for outcome in outcomes(row for row in rows() if only is None or row.label in only):
        measured.append(outcome)
        worst = f"{max(outcome.differences.values()):.1e}" if outcome.differences else ""
        sys.stdout.write(f"{outcome.label}: {outcome.status} {worst} {outcome.why} {outcome.adapter_why}\n")
        sys.stdout.flush()
    if only is None:
        results = result(measured, time.perf_counter() - began)
        write_atomically(RESULTS / "architectures.json", json.dumps(results, indent=1) + "\n")
        models_page.main()


if __name__ == "__main__":
    main()
