"""Where a model name leads: an embedded or packaged model, a directory, a GGUF file, or a hub id; no heavy import."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from mechint.base.artefacts import shown_path
from mechint.base.errors import UnknownModelError
from mechint.base.files import read_json
from mechint.models.packaged_models import PACKAGED, packaged_path
from mechint.organisms import EMBEDDED, organism_path

ADAPTER_CONFIG = "adapter_config.json"
GGUF_SUFFIX = ".gguf"
_HUB_TIMEOUT_S = 1.5
_HUB_ID = re.compile(r"(?!.{97})(\w[\w.-]*\w|\w)/(\w[\w.-]*\w|\w)", re.ASCII)  # as the hub has them


@dataclass(frozen=True)
class Source:
    """A model by name: the name as given to `mi.load`, and the directory, GGUF file or hub id that it stands for.

    `adapter` is the directory of a LoRA adapter that the name stood for; the location is then that of its base model.
    """

    name: str
    location: str
    is_local: bool
    adapter: str | None = None

    @property
    def is_gguf(self) -> bool:
        """Whether the location is that of a GGUF file."""
        return self.is_local and _is_gguf(Path(self.location))


def resolve(name: str | Path) -> Source:
    """Return the source that `name` stands for; never opens a connection.

    Raises UnknownModelError, or PrerequisiteError for a model whose package is not installed.
    """
    text = str(name)
    path = _path(text)
    if path.is_dir():
        if (path / "config.json").is_file():
            return Source(text, str(path), is_local=True)
        if (path / ADAPTER_CONFIG).is_file():
            base = resolve(_base_of(path))
            return replace(base, name=text, adapter=str(path))
        models = sorted(file.name for file in path.glob(f"*{GGUF_SUFFIX}"))
        inside = f"; load one of its GGUF files, {models[0]}" if models else ""
        raise _unknown(text, f"the directory holds no config.json and no {ADAPTER_CONFIG}{inside}")
    if _is_gguf(path):
        return Source(text, str(path), is_local=True)
    if path.exists():
        raise _unknown(text, "it is neither a directory nor a GGUF file")
    if _HUB_ID.fullmatch(text) and "--" not in text and ".." not in text:
        return Source(text, text, is_local=False)
    raise _unknown(text, "no such directory or file, and not of the form owner/name")


def adapter_location(adapter: str | Path) -> str:
    """Return the directory or hub id of a LoRA adapter; an embedded one goes by its name."""
    return str(organism_path(str(adapter)) if str(adapter) in EMBEDDED else adapter)


def _base_of(adapter: Path) -> str:
    """Return the name of the model that an adapter was trained on; raises UnknownModelError for none or an adapter."""
    content = read_json(adapter / ADAPTER_CONFIG)
    base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    if not isinstance(base, str) or not base:
        raise _unknown(str(adapter), f"{ADAPTER_CONFIG} names no base_model_name_or_path")
    path = _path(base)
    if (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file():
        # Of two adapters one would be forgotten; and an adapter may name itself.
        raise _unknown(str(adapter), f"{ADAPTER_CONFIG} names {base}, which is an adapter too, as its base model")
    return base


def check_reachable(source: Source) -> None:
    """Raise UnknownModelError at once for a hub id that is neither cached nor to be had, not after a minute of tries.

    Behind a proxy only the loader can tell, so there nothing is tried.
    """
    if source.is_local or getproxies().get("https"):
        return
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(source.location, "config.json"), str):
        return
    hub = urlparse(constants.ENDPOINT)
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        port = hub.port or (80 if hub.scheme == "http" else 443)
        socket.create_connection((hub.hostname or "", port), timeout=_HUB_TIMEOUT_S).close()
    except OSError as error:
        raise UnknownModelError(
            given=f"model {source.name!r} is not cached here and the hub cannot be reached ({error})",
            allowed="a model that is cached or can be downloaded, a checkpoint directory, or an embedded organism",
            advice="download it where there is a network, or use --model organism",
        ) from error


def _path(name: str) -> Path:
    """Return where a name leads, if to a file; raises UnknownModelError for a name that cannot be a path."""
    if name in EMBEDDED:
        return organism_path(name)
    if name in PACKAGED:
        return packaged_path(name)
    try:
        path = Path(name).expanduser()
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, the home of nobody, no permission
        raise _unknown(name, getattr(error, "strerror", None) or str(error)) from error
    return path


def _is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file: by its name, or as it begins."""
    if path.is_file():
        with suppress(OSError), path.open("rb") as file:
            return path.suffix.lower() == GGUF_SUFFIX or file.read(4) == b"GGUF"
    return path.exists() and not path.is_dir() and path.suffix.lower() == GGUF_SUFFIX


def _unknown(name: str, why: str) -> UnknownModelError:
    return UnknownModelError(
        given=f"model {shown_path(name)!r}: {why}",
        allowed=f"{', '.join(EMBEDDED)} (embedded), {', '.join(PACKAGED)} (a package), a checkpoint directory, a GGUF "
        "file, or a hub id such as Qwen/Qwen2.5-Coder-32B-Instruct",
        advice="check the spelling or the path",
    )
