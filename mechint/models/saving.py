"""A model as a checkpoint directory that any tool of the Hugging Face format opens."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mechint.base.artefacts import reason, shown_path
from mechint.base.errors import OutputError, UsageError
from mechint.models.backends.bridge import BridgeBackend
from mechint.models.backends.twin import plain_copy
from mechint.models.model import Model


def saved(model: Model, directory: Path) -> Path:
    """Write a model's weights as they are now, with its tokenizer; see `Model.save`."""
    backend = _backend_of(model)
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise _refusal(directory, "it is there already, and not empty")
        directory.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{directory.name[:40]}.", dir=directory.parent))
        try:
            plain_copy(backend.hf_model, "eager").save_pretrained(beside)
            model.tokenizer.save_pretrained(beside)
            beside.chmod(0o755)  # as any other folder, not for this user alone
            beside.replace(directory)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OutputError:
        raise
    except Exception as error:  # a full disk, no permission: writers in Rust have errors of their own
        raise _refusal(directory, reason(error)) from error
    return directory


def _backend_of(model: Model) -> BridgeBackend:
    if not isinstance(model.backend, BridgeBackend):
        raise UsageError(f"save of a model with backend={model.backend.kind!r}", "the bridge", "load it with that")
    if getattr(model.backend.hf_model, "peft_config", None):
        raise UsageError(
            given=f"save of {model.name}, an adapter that runs on top of another model's weights",
            allowed="a model with weights of its own",
            advice="merge it: mi.load(..., adapter=...)",
        )
    return model.backend


def _refusal(directory: Path, why: str) -> OutputError:
    return OutputError(
        f"{shown_path(directory)} cannot be written as a checkpoint: {why}",
        "a directory that is new or empty, with write permission and space",
        "choose another directory",
    )
