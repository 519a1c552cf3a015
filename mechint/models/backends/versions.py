"""The features of the installed versions of TransformerLens and SAE Lens: the one place where they are looked up.

TransformerLens 4 keeps the bridge and drops HookedTransformer. SAE Lens 6 needs TransformerLens 3.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from inspect import signature
from typing import TYPE_CHECKING

from mechint.base.errors import PrerequisiteError

if TYPE_CHECKING:
    from sae_lens import SAE
    from torch import nn
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

    from mechint.models.backends.base import HookFn

_HOOKED = 'pip install "transformer-lens>=3.9,<4", or use backend="bridge"'
_SAE = 'pip install "sae-lens>=6.54,<7" "transformer-lens>=3.9,<4"'


def installed(package: str) -> str:
    """Return the installed version of a package, or that it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def has_hooked() -> bool:
    """Whether the installed TransformerLens has HookedTransformer."""
    return installed("transformer-lens").split(".")[0] == "3"


def require_hooked() -> None:
    """Raise PrerequisiteError unless the installed TransformerLens has HookedTransformer."""
    if not has_hooked():
        version = installed("transformer-lens")
        raise PrerequisiteError(
            given=f"backend='hooked' with transformer-lens {version}, which has no HookedTransformer",
            allowed="transformer-lens 3.9 or a later 3.x",
            advice=_HOOKED,
        )


def require_sae_lens() -> type[SAE[object]]:
    """Return SAE Lens' class of SAEs.

    Raises PrerequisiteError where SAE Lens is not there, or does not fit the installed TransformerLens.
    """
    try:
        from sae_lens import SAE
    except ImportError as error:
        pair = ("sae-lens", "transformer-lens")
        raise PrerequisiteError(
            given="SAE Lens cannot be used: " + ", ".join(f"{package} {installed(package)}" for package in pair),
            allowed="sae-lens 6.54 or newer beside transformer-lens 3.9 or a later 3.x",
            advice=_SAE,
        ) from error
    sae_class: type[SAE[object]] = SAE
    return sae_class


def wrappable() -> tuple[type[nn.Module], ...]:
    """Return the classes of TransformerLens models that the installed version has, the bridge first."""
    from transformer_lens.model_bridge import TransformerBridge

    if not has_hooked():
        return (TransformerBridge,)
    from transformer_lens import HookedTransformer

    return (TransformerBridge, HookedTransformer)


def hook_check(bridge: TransformerBridge) -> Callable[[HookPoint, HookFn], None]:
    """Return what raises ValueError for a hook on a point that a bridge has switched off, where it would never run."""
    if len(signature(bridge.check_hooks_to_add).parameters) == 1:  # up to version 3
        return lambda point, _: bridge.check_hooks_to_add(point.name)
    return lambda point, hook: bridge.check_hooks_to_add(point, point.name, hook)
