"""Which parts of TransformerLens and SAE Lens the installed versions have, decided in one place."""

from __future__ import annotations

import sys

import prerequisites
import pytest
import torch

import mechint as mi
import mechint.attribution.sae
from mechint.base.errors import PrerequisiteError, UsageError
from mechint.models.backends import versions


@pytest.fixture
def version_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TransformerLens say that it is 4.3."""
    real = versions.installed
    monkeypatch.setattr(
        versions, "installed", lambda package: "4.3.0" if package == "transformer-lens" else real(package)
    )


def test_the_hooked_backend_is_refused_before_anything_is_read_where_it_is_not_there(tmp_path, version_4):
    with pytest.raises(PrerequisiteError, match=r"transformer-lens 4\.3\.0(.|\n)*pip install") as refused:
        mi.load(_directory(tmp_path), backend="hooked")
    assert 'backend="bridge"' in refused.value.advice


def _directory(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_the_bridge_does_without_what_version_4_dropped(model, version_4):
    wrapped = mi.wrap(model.backend.handle, tokenizer=model.tokenizer)
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.equal(wrapped.logits(tokens), model.logits(tokens))
    with pytest.raises(UsageError, match="allowed: a TransformerBridge"):
        mi.wrap(torch.nn.Linear(2, 2))


def test_saes_name_the_versions_that_do_not_go_together(family, monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(PrerequisiteError, match=r"sae-lens .*, transformer-lens \d(.|\n)*pip install"):
        mechint.attribution.sae.load(family["organism"])


def test_hooks_can_be_set_by_their_other_names(model):
    """The names that a version gives besides the canonical ones are where it keeps them."""
    names = versions.aliases(model.backend.handle.hook_dict)
    assert "blocks.0.hook_resid_post" in names | set(model.backend.handle.hook_dict)
    assert names <= model.backend.hook_names()


@pytest.mark.parametrize("error", [ImportError("x", name="sae_lens"), PrerequisiteError("x", "y", "z")])
def test_nothing_is_skipped_where_all_is_installed(error, monkeypatch):
    monkeypatch.setattr(versions, "installed", {"transformer-lens": "3.9.0", "sae-lens": "6.54.12"}.get)
    assert prerequisites.reason(error) is None
    monkeypatch.setattr(versions, "installed", lambda _: "not installed")
    assert prerequisites.reason(error)
    assert prerequisites.reason(ImportError("x", name="numpy")) is None
