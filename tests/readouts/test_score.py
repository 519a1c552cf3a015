"""score and logit_lens against the naive recomputation, in any batch and order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import pytest
import reference
import tiny
import torch
from conftest import conversation, vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.base.errors import ChatTemplateError, MemoryLimitError, TokenizationError, UsageError
from mechint.base.files import sha256
from mechint.chat.render import render
from mechint.engine import passes
from mechint.engine.plan import Step
from mechint.interventions.specifications import CLEAN, Injection, Swap
from mechint.models.backends.blocks import Blocks

CASES = [(arch, backend) for arch in ("qwen2", "llama", "gemma2", "gpt2") for backend in ("bridge", "hooked")]
QUESTIONS = ("do you detect an injected thought?", "yes or no?", "is a thought about the sea or nothing at all?")


def conversations() -> list[mi.Conversation]:
    shared = [conversation(f"shared-{i}", question) for i, question in enumerate(QUESTIONS)]
    return [*shared, conversation("other", setup="Tell me about bread, or the sea.")]


def additions(model: mi.Model, chat: mi.Conversation, v: mi.ConceptVector, layers: range, strength: float) -> list:
    positions = render(model.tokenizer, chat).marked().nonzero()[:, 0].tolist()
    return [reference.Addition(layer, v.vectors[layer] * strength, positions) for layer in layers]


def expected_row(model: mi.Model, logits: torch.Tensor) -> dict[str, float]:
    yes = model.tokenizer(" yes", add_special_tokens=False)["input_ids"][0]
    no = model.tokenizer(" no", add_special_tokens=False)["input_ids"][0]
    p = logits.double().softmax(-1)
    return {
        "p_yes": p[yes].item(),
        "p_no": p[no].item(),
        "logit_yes": logits[yes].item(),
        "logit_no": logits[no].item(),
        "logit_diff": (logits[yes] - logits[no]).item(),
        "yes_no_mass": (p[yes] + p[no]).item(),
        "entropy": -(p * p.log()).sum().item(),
    }


def cell(table: pd.DataFrame, label: str, intervention: str) -> pd.Series:
    rows = table[(table.conversation == label) & (table.intervention == intervention)]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize(("arch", "backend"), CASES)
def test_score_equals_the_naive_recomputation(arch, backend, tiny_model, plain_hf):
    model, hf = tiny_model(arch, backend), plain_hf(arch)
    v = vector(model)
    steer = Injection(v, layers=range(1, 3), strength=1.5, name="steer")
    table = mi.score(model, conversations(), [CLEAN, steer])
    assert len(table) == 2 * len(conversations())
    for chat in conversations():
        tokens = render(model.tokenizer, chat).tokens
        added = additions(model, chat, v, range(1, 3), 1.5)
        rows = {
            "clean": expected_row(model, reference.logits(hf, tokens)),
            "steer": expected_row(model, reference.logits(hf, tokens, added)),
        }
        for name, expected in rows.items():
            row = cell(table, chat.label, name)
            for column, value in expected.items():
                tolerance = 1e-5 if column in ("p_yes", "p_no", "yes_no_mass") else 1e-4
                assert row[column] == pytest.approx(value, abs=tolerance), (chat.label, name, column)
        shift = rows["steer"]["logit_diff"] - rows["clean"]["logit_diff"]
        assert abs(shift) > 1e-3
        assert cell(table, chat.label, "steer").logit_diff_shift == pytest.approx(shift, abs=1e-4)


@pytest.mark.parametrize(("arch", "backend"), CASES)
def test_lens_equals_the_naive_recomputation(arch, backend, tiny_model, plain_hf):
    model, hf, chat = tiny_model(arch, backend), plain_hf(arch), conversation()
    v = vector(model)
    steer = Injection(v, layers=range(2), strength=1.5, name="steer")
    table = mi.logit_lens(model, chat, [CLEAN, steer])
    tokens = render(model.tokenizer, chat).tokens
    for name, added in (("clean", []), ("steer", additions(model, chat, v, range(2), 1.5))):
        rows = table[table.intervention == name]
        assert list(rows.layer) == ["embed", *range(model.n_layers)]
        for (_, row), logits in zip(rows.iterrows(), reference.lens(hf, tokens, added), strict=True):
            expected = expected_row(model, logits)
            assert row.p_yes == pytest.approx(expected["p_yes"], abs=1e-5), row.layer
            assert row.p_no == pytest.approx(expected["p_no"], abs=1e-5), row.layer
            assert row.logit_diff == pytest.approx(expected["logit_diff"], abs=1e-4), row.layer


def test_last_row_of_the_lens_is_the_output(model):
    steer = Injection(vector(model), strength=1.0, name="steer")
    lens, output = mi.logit_lens(model, conversation(), steer), mi.score(model, conversation(), steer)
    last = lens[lens.layer == model.n_layers - 1].iloc[0]
    for column in output.columns:
        assert last[column] == output.iloc[0][column], column


def test_injection_shows_only_above_its_layer(model):
    table = mi.logit_lens(model, conversation(), Injection(vector(model), layers=[2], strength=3.0))
    assert (table.logit_diff_shift[:4] == 0).all()  # embed, 0, 1, 2: nothing was added to the row that is read
    assert table.logit_diff_shift.iloc[4] != 0


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(1, 9),
    order=st.permutations(range(4)),
    choices=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.floats(0.0, 3.0)), min_size=1, max_size=4),
    backend=st.sampled_from(["bridge", "hooked"]),
)
def test_batches_and_order_change_nothing(batch_size, order, choices, backend, tiny_model):
    model = tiny_model("qwen2", backend)
    steers = [
        Injection(vector(model, i), layers=range(first, min(4, first + n)), strength=strength, name=f"s{i}")
        for i, (first, n, strength) in enumerate(choices)
    ]
    swap = Swap(tiny_model("qwen2", backend, seed=1), name="swap")
    chats = [conversations()[i] for i in order]
    table = mi.score(model, chats, [swap, *steers, CLEAN], batch_size=batch_size)
    assert list(table.conversation.unique()) == [c.label for c in chats]
    for chat in chats:
        alone = mi.score(model, chat, [CLEAN, swap, *steers], batch_size=1)
        rows = table[table.conversation == chat.label].set_index("intervention").loc[alone.intervention]
        for column in ("p_yes", "p_no", "p_yes_shift", "p_no_shift"):
            assert rows[column].tolist() == pytest.approx(alone[column].tolist(), abs=1e-6)


def test_shifts_do_not_need_clean_to_be_asked_for(model):
    steer = Injection(vector(model), strength=1.0, name="steer")
    with_clean = mi.score(model, conversation(), [CLEAN, steer])
    without = mi.score(model, conversation(), [steer])
    assert list(without.intervention) == ["steer"]
    assert without.logit_diff_shift[0] == with_clean.logit_diff_shift[1]
    assert with_clean.logit_diff_shift[0] == 0.0


def test_zero_strength_is_exactly_clean_and_swap_with_itself_is_clean(model):
    zero = Injection(vector(model), strength=0.0, name="zero")
    table = mi.score(model, conversations(), [CLEAN, zero, Swap(model, name="self")])
    assert (table[table.intervention == "zero"].p_yes_shift == 0.0).all()
    assert table[table.intervention == "self"].p_yes_shift.abs().max() < 1e-6


def test_the_intervention_is_gone_when_the_answer_is_read(model):
    """Reading under an injection would change even a conversation whose cache is clean."""
    steer = Injection(vector(model), layers=[0], strength=5.0, name="steer")
    before = mi.score(model, conversation(), CLEAN)
    mi.score(model, conversation(), steer)
    after = mi.score(model, conversation(), CLEAN)
    pd.testing.assert_frame_equal(before, after)
    kept_on = []
    tokens = render(model.tokenizer, conversation()).token_tensor()
    v = vector(model).vectors[0] * 5.0
    hooks = [
        (model.resid_post(0), lambda activation, /, *, hook: activation + v),
        (model.resid_post(3), lambda activation, /, *, hook: kept_on.append(activation[:, -1])),
    ]
    model.forward(tokens, hooks=hooks)
    leaking = model.readout.read(kept_on[0], torch.tensor([0])).log_sum_exp.item()
    removed = mi.score(model, conversation(), steer)
    assert removed.entropy[0] != before.entropy[0]
    assert abs(leaking - (removed.logit_yes[0] - math.log(removed.p_yes[0]))) > 1e-2


def test_the_filled_cache_is_not_touched_by_reading(model, monkeypatch):
    prints: list[tuple[str, str]] = []
    real = passes.Pass.run

    def fingerprint(done: Mapping[Step, passes.StepResult]) -> str:
        stored = [side for result in done.values() for pair in result.stored.values() for side in pair]
        return sha256(*(tensor.contiguous().numpy().tobytes() for tensor in stored))

    def checked(self, depth, layers):
        before = fingerprint(self.done)
        result = real(self, depth, layers)
        prints.append((before, fingerprint(self.done)))
        return result

    monkeypatch.setattr(passes.Pass, "run", checked)
    mi.score(model, conversations(), [CLEAN, Injection(vector(model), strength=1.0)], batch_tokens=30)
    assert len({before for before, _ in prints}) > 2
    assert all(before == after for before, after in prints)


def test_variant_sets(model):
    variants = {reduce: mi.Answers(yes=(" yes", " Yes"), no=(" no",), reduce=reduce) for reduce in ("sum", "max")}
    total = mi.score(model, conversation(), CLEAN, answers=variants["sum"]).iloc[0]
    best = mi.score(model, conversation(), CLEAN, answers=variants["max"]).iloc[0]
    each = [
        mi.score(model, conversation(), CLEAN, answers=mi.Answers(yes=y, no=" no")).iloc[0] for y in (" yes", " Yes")
    ]
    assert total.p_yes == pytest.approx(each[0].p_yes + each[1].p_yes)
    assert total.logit_yes == pytest.approx(math.log(sum(math.exp(e.logit_yes) for e in each)))
    assert best.p_yes == pytest.approx(max(e.p_yes for e in each))


def test_options(model):
    table = mi.score(model, conversation(), [CLEAN], answers=mi.Answers.options([" yes", " no", " Yes"]))
    plain = mi.score(model, conversation(), [CLEAN])
    assert table["p_ yes"][0] == pytest.approx(plain.p_yes[0])
    assert table["logit_ no"][0] == pytest.approx(plain.logit_no[0])
    assert {"p_ Yes", "logit_ Yes", "entropy"} <= set(table.columns)
    assert "p_yes" not in table


def test_unnamed_answers_are_nan(model):
    unnamed = replace(conversation(), yes_token="", no_token="")
    table = mi.score(model, [unnamed, conversation("named")], [CLEAN])
    assert table[["p_yes", "p_no", "logit_diff", "yes_no_mass", "p_yes_shift"]].iloc[0].isna().all()
    assert table.iloc[1].notna().all()
    assert math.isfinite(table.entropy[0])


def test_multi_token_answers_are_refused_before_any_pass(model, monkeypatch):
    monkeypatch.setattr(model.backend, "forward", None)
    with pytest.raises(TokenizationError, match="' maybe'"):
        mi.score(model, replace(conversation(), yes_token=" maybe"), [CLEAN])


def test_receipts_come_with_the_table(model):
    table = mi.score(model, conversations(), [CLEAN, Injection(vector(model), strength=1.0, name="s")])
    receipts = table.attrs["receipts"]
    assert len(receipts) == 4  # two prefixes, two interventions
    assert {r["kind"] for r in receipts} == {"clean", "injected"}
    assert all(t["firings"] == 1 for r in receipts for t in r["layers"])


@pytest.mark.parametrize(
    ("chats", "steers"),
    [
        ([], [CLEAN]),
        ([conversation()], []),
        ([conversation("a"), conversation("a", "yes or no?")], [CLEAN]),
        ([conversation()], [CLEAN, CLEAN]),
    ],
)
def test_bad_tables(chats, steers, model):
    with pytest.raises(UsageError):
        mi.score(model, chats, steers)


def test_bad_batch_size(model):
    with pytest.raises(UsageError, match="batch_size=0"):
        mi.score(model, conversation(), CLEAN, batch_size=0)


def test_progress_counts_cells_and_tokens(model):
    done: list[tuple[int, int]] = []
    steers = [Injection(vector(model), strength=1.0), CLEAN]
    mi.score(model, conversations(), steers, batch_tokens=30, progress=lambda *counts: done.append(counts))
    assert sum(cells for cells, _ in done) == 2 * len(conversations())
    distinct = {render(model.tokenizer, c).tokens for c in conversations()}
    assert 0 < sum(tokens for _, tokens in done) < 2 * sum(len(tokens) for tokens in distinct)


class Exhausted:
    """Blocks that run out of memory when they are given more than some rows."""

    def __init__(self, blocks: Blocks, rows: int, kind: type[Exception]) -> None:
        self.blocks, self.rows, self.kind, self.refused = blocks, rows, kind, 0
        self.model, self.windows, self.packs, self.packed = blocks.model, blocks.windows, False, blocks.packed
        self.shares_prompts = False

    def begin(self, tokens, past):
        prepared = self.blocks.begin(tokens, past)
        real = prepared.block

        def block(layer, resid, *rest, **options):
            if len(resid) > self.rows:
                self.refused += 1
                raise self.kind("out of memory")
            return real(layer, resid, *rest, **options)

        prepared.block = block
        return prepared


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_batches_are_halved_when_memory_runs_out(kind, model, monkeypatch):
    steers = [CLEAN, *(Injection(vector(model, i), strength=1.0, name=str(i)) for i in range(4))]
    expected = mi.score(model, conversations(), steers)
    exhausted = Exhausted(model.blocks, 2, kind)
    monkeypatch.setattr(model.backend, "blocks", exhausted)
    table = mi.score(model, conversations(), steers)
    assert 0 < exhausted.refused < 12
    pd.testing.assert_frame_equal(table, expected, atol=1e-5, rtol=0)
    monkeypatch.setattr(model.backend, "blocks", Exhausted(exhausted.blocks, 0, kind))
    with pytest.raises(MemoryLimitError, match="larger device"):
        mi.score(model, conversations(), steers)


def test_templates_agree_with_their_own_rendering(tiny_model, plain_hf):
    """The whole path on every style of template."""
    for arch, template in (("llama", "mistral"), ("qwen2", "gemma"), ("gpt2", "llama3")):
        model = tiny_model(arch, template=template)
        table = mi.score(model, conversation(), CLEAN)
        tokens = render(model.tokenizer, conversation()).tokens
        logits = reference.logits(plain_hf(arch, template), tokens)
        assert table.p_yes[0] == pytest.approx(expected_row(model, logits)["p_yes"], abs=1e-5)


def test_template_without_the_prefix_property_is_refused(tiny_checkpoint):
    model = mi.load(tiny_checkpoint("qwen2"))
    model.tokenizer.chat_template = tiny.CHATML.replace("m['content']", "(m['content'] if loop.last else 'x')")
    with pytest.raises(ChatTemplateError):
        mi.score(model, conversation(), CLEAN)


def test_tables_show_the_text_that_was_read(model):
    chats = conversations()
    texts = {chat.label: str(mi.render(model, chat)) for chat in chats}
    assert mi.score(model, chats, CLEAN).attrs["renderings"] == texts
    assert mi.generate(model, chats, CLEAN, max_new_tokens=1).attrs["renderings"] == texts
    named = mi.name_log_probs(model, chats, {"maybe": [" maybe"]}, CLEAN)
    assert named.attrs["renderings"] == texts
