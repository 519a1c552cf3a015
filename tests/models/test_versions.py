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

# Canonical names, and others that TransformerLens knew earlier.
HOOKS = ("hook_in", "hook_resid_pre", "hook_resid_post", "hook_mlp_out", "attn.hook_q", "attn.q.hook_out")


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


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "gpt_neox"])
def test_hooks_are_set_where_the_bridge_sets_them_by_every_name(tiny_model, architecture):
    model = tiny_model(architecture)
    bridge = model.backend.handle

    def where() -> list[object]:
        return [id(point) for point in bridge.hook_dict.values() if point.fwd_hooks]

    names = sorted(set(bridge.hook_dict) & {f"blocks.0.{name}" for name in HOOKS})
    assert "blocks.0.hook_resid_post" in names
    for name in names:
        hook = (name, lambda activation, /, *, hook: None)
        with bridge.hooks(fwd_hooks=[hook]):
            expected = where()
        with model.backend._hooked([hook]):
            set_on = where()
        assert set_on == expected != []
    assert not where()


def test_a_hook_that_would_never_run_is_refused(model):
    hook = ("blocks.0.attn.hook_result", lambda activation, /, *, hook: None)
    with pytest.raises(ValueError, match="use_attn_result is False"):
        model.forward(torch.tensor([[5, 6, 7]]), hooks=[(model.resid_post(0), hook[1]), hook])
    assert model.backend.live_hooks() == []


@pytest.mark.parametrize("error", [ImportError("x", name="sae_lens"), PrerequisiteError("x", "y", "z")])
def test_nothing_is_skipped_where_all_is_installed(error, monkeypatch):
    monkeypatch.setattr(versions, "installed", {"transformer-lens": "3.9.0", "sae-lens": "6.54.12"}.get)
    assert prerequisites.reason(error) is None
    monkeypatch.setattr(versions, "installed", lambda _: "not installed")
    assert prerequisites.reason(error)
    assert prerequisites.reason(ImportError("x", name="numpy")) is None
