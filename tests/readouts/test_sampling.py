"""Sampled rows: their own numbers whatever shares the batch, one prefill for each prompt, places that are filled."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
import torch
from conftest import Load, conversation, vector

import mechint as mi
from mechint.base.errors import UsageError
from mechint.engine import explain_replies
from mechint.engine.explain_replies import ReplyMemory
from mechint.engine.replies import ReplyPlan, Sampling
from mechint.interventions.specifications import CLEAN, Injection
from mechint.models.readout import Readout
from mechint.readouts import reply_cache
from mechint.readouts.decode import LOOP, Reply, choose, loops
from mechint.readouts.sampler import Sampler

NEW = 7
KEY = ["conversation", "intervention", "sample", "steer"]
SAMPLED = {"temperature": 1.0, "max_new_tokens": NEW}


def chats() -> list[mi.Conversation]:
    return [conversation("long", setup="Tell me about cats. Tell me about bread."), conversation("short")]


def steers(model: mi.Model) -> list[Injection]:
    """Different vectors, layers and strengths."""
    v, w = vector(model), vector(model, seed=3)
    return [
        Injection(v, layers=[1], strength=0.7, name="v"),
        Injection(w, layers=[0, 2, 3], strength=1.5, name="w"),
        Injection(-v, layers=[2], relative_strength=0.3, name="-v"),
    ]


@pytest.fixture
def passes(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and positions of every pass."""
    begin, shapes = model.blocks.begin, []
    monkeypatch.setattr(model.blocks, "begin", lambda t, past: (shapes.append(tuple(t.shape)), begin(t, past))[1])
    return shapes


def by_key(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index(KEY).sort_index()


@pytest.mark.parametrize("mode", ["prefill", "reply", "everything"])
def test_a_row_is_the_same_in_any_batch_order_shard_and_part(mode: str, model: mi.Model):
    listed = [CLEAN, *steers(model)]
    whole = by_key(mi.generate(model, chats(), listed, n=3, steer=mode, **SAMPLED))
    assert whole["text"].nunique() > 16
    turned = mi.generate(model, chats()[::-1], listed[::-1], n=[2, 0, 1], steer=mode, batch_size=3, **SAMPLED)
    parts = [
        mi.generate(model, item, steer, n=[sample], steer=mode, **SAMPLED)
        for item in chats()
        for steer in listed[1:3]
        for sample in (0, 2)
    ]
    for other in (by_key(turned), by_key(pd.concat(parts))):
        same = whole.loc[other.index]
        assert same["text"].tolist() == other["text"].tolist()
        assert same["n_tokens"].tolist() == other["n_tokens"].tolist()
        assert same["stopped"].tolist() == other["stopped"].tolist()
        assert same["log_prob"].tolist() == pytest.approx(other["log_prob"].tolist(), abs=1e-3)


def test_twenty_samples_are_twenty_runs(model: mi.Model):
    steer = steers(model)[1]
    request = {"steer": "reply", "temperature": 1.0, "max_new_tokens": 4}
    at_once = mi.generate(model, conversation(), steer, n=20, **request)
    alone = pd.concat([mi.generate(model, conversation(), steer, n=[at], **request) for at in range(20)])
    assert at_once["text"].tolist() == alone["text"].tolist()
    assert at_once["text"].nunique() > 16


def test_a_longer_reply_begins_with_the_shorter(model: mi.Model):
    """A reply that was cut off can be continued: asked for with more tokens, it says the same and then more."""
    tables = [mi.generate(model, chats(), CLEAN, n=4, temperature=1.0, max_new_tokens=most) for most in (5, 15)]
    assert set(tables[0]["stopped"]) <= {"end", "length"}
    for short, long in zip(*[table.itertuples() for table in tables], strict=True):
        assert long.text.startswith(short.text.rstrip("\N{REPLACEMENT CHARACTER}"))
        assert short.n_tokens == min(5, long.n_tokens)


def test_all_cells_and_controls_of_a_prompt_share_one_prefill(model: mi.Model, passes: list[tuple[int, int]]):
    listed = [CLEAN, *steers(model)]
    requests = [
        mi.ReplyRequest(chats(), listed, n=3, steer="reply", **SAMPLED),
        mi.ReplyRequest(chats(), CLEAN, n=range(3, 9), steer="reply", **SAMPLED),
        mi.ReplyRequest(chats(), CLEAN, **SAMPLED),
    ]
    table = mi.replies(model, requests, batch_size=8)
    assert len(table) == 2 * (4 * 3 + 6 + 1)
    prompts = [shape for shape in passes if shape[1] > 1]
    assert len(prompts) == 2
    assert {shape[0] for shape in prompts} == {1}
    served = [(p["conversation"], p["intervention"], p["replies"]) for p in table.attrs["prefills"]]
    assert served == [("long", "clean", 19), ("short", "clean", 19)]
    assert mi.explain(model, requests).prefills == 2


def test_prompts_that_differ_are_filled_once_each(model: mi.Model, passes: list[tuple[int, int]]):
    """With zeros added, or the same under another label, a prompt is the clean one."""
    zero = Injection(vector(model), layers=[1], strength=0.0, name="zero")
    again = [conversation("short"), conversation("again")]
    table = mi.generate(model, again, [CLEAN, zero, *steers(model)], n=2, **SAMPLED)
    filled = [p["intervention"] for p in table.attrs["prefills"]]
    assert sorted(filled) == ["-v", "clean", "v", "w"]
    assert [p["replies"] for p in table.attrs["prefills"] if p["intervention"] == "clean"] == [8]
    assert sorted(shape for shape in passes if shape[1] > 1) == [(1, table.attrs["prefills"][0]["tokens"])] * 2
    assert len(table.attrs["receipts"]) == 10, "each cell has its receipt"


def test_free_places_are_filled_by_the_next_rows(model: mi.Model, passes: list[tuple[int, int]]):
    """Replies of 2 to 12 tokens in three places: no place is empty while a row waits."""
    lengths = [2, 12, 3, 3, 9, 2, 2, 4]
    requests = [
        mi.ReplyRequest(conversation(), CLEAN, n=[at], temperature=1.0, max_new_tokens=most, seed=1)
        for at, most in enumerate(lengths)
    ]
    table = mi.replies(model, requests, batch_size=3)
    assert (table["n_tokens"] <= lengths).all()
    sizes = [rows for rows, n_pos in passes if n_pos == 1]
    waiting = max(at for at, size in enumerate(sizes) if size == 3)
    assert sizes[: waiting + 1] == [3] * (waiting + 1)
    assert sum(sizes) == (table["n_tokens"] - 1).sum()
    assert len(sizes) < sum(lengths) / 2


def test_rows_that_move_and_are_moved_back_say_what_they_say_alone(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    """With one position of slack all rows are moved at each step, and prompts of two lengths come and go."""
    listed = [CLEAN, *steers(model)]
    plenty = mi.generate(model, chats(), listed, n=3, steer="reply", **SAMPLED)
    monkeypatch.setattr(explain_replies, "SLACK", 1)
    moved, real = [], reply_cache.ReplyCaches._move_back
    monkeypatch.setattr(reply_cache.ReplyCaches, "_move_back", lambda caches: (moved.append(1), real(caches)))
    tight = mi.generate(model, chats(), listed, n=3, steer="reply", batch_size=5, **SAMPLED)
    assert len(moved) > 3
    assert plenty["text"].tolist() == tight["text"].tolist()


@pytest.mark.parametrize("arch", ["gemma3", "gpt2"])
def test_windows_and_learned_positions_stand_a_full_house(arch: str, tiny_model: Load):
    model = tiny_model(arch)
    listed, options = [CLEAN, *steers(model)], {"steer": "reply", "temperature": 1.0, "max_new_tokens": 6}
    together = mi.generate(model, chats(), listed, n=2, batch_size=3, **options)
    alone = mi.generate(model, chats(), listed, n=2, batch_size=1, **options)
    assert together["text"].tolist() == alone["text"].tolist()


@pytest.mark.parametrize("arch", ["qwen2", "llama", "gpt2", "gpt_neox"])
def test_rows_that_share_a_prompt_say_what_they_say_with_copies(
    arch: str, tiny_model: Load, monkeypatch: pytest.MonkeyPatch
):
    model, tables, costs = tiny_model(arch), [], []
    assert model.blocks.shares_prompts
    for worth in (1, 1000):
        monkeypatch.setattr(explain_replies, "_WORTH_SHARING", worth)
        request = mi.ReplyRequest(chats(), [CLEAN, *steers(model)], n=2, steer="reply", **SAMPLED)
        tables.append(mi.replies(model, request, batch_size=5))
        costs.append(mi.explain(model, request, batch_size=5).cache_bytes)
    shared, copied = tables
    assert shared["text"].tolist() == copied["text"].tolist()
    assert shared["log_prob"].tolist() == pytest.approx(copied["log_prob"].tolist(), abs=1e-4)
    assert costs[0] < costs[1]


def test_blocks_are_tried_before_prompts_are_shared(tiny_model: Load, monkeypatch: pytest.MonkeyPatch):
    """Windows, capped scores and the hooked backend have copies; so has what does not tell its attention of prompts."""
    from mechint.models.backends import attention, shared_prompts

    for arch, backend in (("gemma2", "bridge"), ("gemma3", "bridge"), ("qwen2", "hooked")):
        assert not tiny_model(arch, backend).blocks.shares_prompts
    blocks = tiny_model("qwen2").blocks
    assert shared_prompts.shares_prompts(blocks, 4)
    attend = shared_prompts.PromptAttention.attend
    for wrong in (
        lambda self, query, keys, values, scaling: attend(self, query, keys, values, scaling) * 0.5,
        lambda self, query, keys, values, scaling: attend(self, query, keys, values * 0.0, scaling),
        lambda self, query, keys, values, scaling: attention.sdpa_attention_forward(
            blocks.blocks[0].self_attn, query, keys, values, None, scaling=scaling
        )[0],
    ):
        monkeypatch.setattr(shared_prompts.PromptAttention, "attend", wrong)
        assert not shared_prompts.shares_prompts(blocks, 4)


def test_what_a_row_leaves_behind_cannot_reach_the_next(model: mi.Model):
    """Nothing of a row whose caches hold no numbers is in its place when the next row, which is shorter, takes it."""
    caches = reply_cache.ReplyCaches(1, 12, 6)

    def prompt(n_pos: int, value: float) -> mi.KVCache:
        return mi.KVCache((torch.full((1, 2, n_pos, 4), value),), (torch.full((1, 2, n_pos, 4), value),))

    caches.admit(prompt(6, float("nan")))
    caches.advance()
    caches.remove(0)
    caches.admit(prompt(2, 1.0))
    new = torch.ones(1, 2, 1, 4)
    keys, values = caches.past(0).joined((new, new))
    assert keys.shape == values.shape == (1, 2, 3, 4)
    assert bool((keys == 1).all())
    assert bool((values == 1).all())


@pytest.mark.parametrize(
    ("tokens", "is_loop"),
    [
        ([7] * LOOP, True),
        ([7] * (LOOP - 1), False),
        ([1, 2, 3] * 14, True),
        (list(range(13)) * 4, True),
        (list(range(14)) * 4, False),
        ([9, 9, *([4, 5] * 20)], True),
        ([*([4, 5] * 19), 4, 6], False),
        (list(range(100)), False),
    ],
)
def test_a_loop_is_an_ngram_over_forty_tokens(tokens: list[int], is_loop: bool):
    assert loops(tokens) == is_loop


def scripted(monkeypatch: pytest.MonkeyPatch, tokens: Iterator[int], d_vocab: int) -> None:
    def logits(_: Readout, resid: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.full((len(resid),), next(tokens)), d_vocab) * 50.0

    monkeypatch.setattr(Readout, "logits", logits)


def test_looping_rows_stop_unless_they_may_not(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    yes, no = model.tokenizer.encode(" yes no")
    for options, stopped in (({}, ("loop", 2 + LOOP)), ({"end_loops": False}, ("length", 60))):
        scripted(monkeypatch, iter([yes, yes, no] * 100), model.backend.d_vocab)
        (row,) = mi.generate(model, conversation(), CLEAN, max_new_tokens=60, **options).itertuples()
        assert (row.stopped, row.n_tokens) == (stopped if options else ("loop", LOOP))
    reply = Reply(torch.Generator(), Sampling(LOOP))
    for _ in range(LOOP):
        reply.say(7, 0.0, frozenset())
    assert reply.stopped == "loop", "at the last place that is allowed too"


def test_draws_of_a_large_flat_vocabulary_stand_rounding():
    """Where half of the logits move by a rounding, a cumulative sum passes many small tokens; a half of all, none."""
    n, d_vocab = 100, 50_000
    logits = torch.randn(n, d_vocab, generator=torch.Generator().manual_seed(0)) * 0.1
    rounded = logits.clone()
    rounded[:, : d_vocab // 2] += 1e-5

    def draw(values: torch.Tensor) -> list[int]:
        return choose(values, [1.0] * n, [Sampling().generator("row", at) for at in range(n)]).tolist()

    drawn = draw(logits)
    assert drawn == draw(rounded)
    assert len(set(drawn)) > 90

    def inverted(values: torch.Tensor) -> torch.Tensor:
        numbers = torch.rand(n, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        return torch.searchsorted(values.double().softmax(-1).cumsum(-1), numbers)

    assert not torch.equal(inverted(logits), inverted(rounded)), "which is why they are not drawn so"


def test_temperatures_and_greedy_rows_share_a_batch(model: mi.Model):
    logits = torch.tensor([[0.0, 1.0, 3.0]] * 4000)
    heats = [0.0, 0.5, 1.0, 4.0] * 1000
    chosen = choose(logits, heats, [Sampling().generator(at) for at in range(4000)])
    for at, heat in enumerate(heats[:4]):
        share = torch.bincount(chosen[at::4], minlength=3) / 1000
        expected = torch.tensor([0.0, 0.0, 1.0]) if heat == 0 else (logits[0] / heat).softmax(-1)
        torch.testing.assert_close(share, expected, atol=0.05, rtol=0.0)
    requests = [
        mi.ReplyRequest(conversation(), CLEAN, max_new_tokens=4),
        mi.ReplyRequest(conversation(), CLEAN, max_new_tokens=9, temperature=1.0, n=2),
    ]
    both = mi.replies(model, requests)
    apart = pd.concat([mi.replies(model, request) for request in requests])
    assert both["text"].tolist() == apart["text"].tolist()


def test_the_first_token_is_read_where_it_is_asked(model: mi.Model):
    answers, listed = mi.Answers(" yes", " no"), [CLEAN, steers(model)[0]]
    table = mi.generate(model, chats(), listed, max_new_tokens=3, answers=answers)
    read = mi.score(model, chats(), listed, answers=answers)
    for column in ("p_yes", "logit_no", "logit_diff", "entropy"):
        assert table[f"first_{column}"].tolist() == pytest.approx(read[column].tolist(), abs=1e-4)
    assert not [name for name in mi.generate(model, chats(), CLEAN, max_new_tokens=3) if name.startswith("first")]


def test_explain_tells_prefills_tokens_and_memory(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    request = mi.ReplyRequest(chats(), [CLEAN, *steers(model)], n=4, steer="everything", **SAMPLED)
    cost = mi.explain(model, request, batch_size=6)
    lengths = [len(mi.render(model, chat).tokens) for chat in chats()]
    assert (cost.replies, cost.prefills, cost.at_once) == (32, 8, 6)
    assert cost.prompt_tokens == 4 * sum(lengths)
    assert cost.reply_tokens == 32 * (NEW - 1)
    assert cost.alone_tokens == 16 * sum(lengths) + cost.reply_tokens
    for text in (str(cost), cost._repr_html_()):
        assert "32" in text
        assert "peak memory" in text
    most, plan = [0], ReplyPlan.of(model, [request])
    sampler, real = Sampler(plan, ReplyMemory.of(plan, 6, None)), reply_cache.ReplyCaches.admit

    def admit(caches: reply_cache.ReplyCaches, prompt: mi.KVCache) -> None:
        real(caches, prompt)
        most[0] = max(most[0], caches.n_bytes)

    monkeypatch.setattr(reply_cache.ReplyCaches, "admit", admit)
    n_tokens = sum(len(said.reply.tokens) - 1 for ended in sampler.run() for said in ended)
    token = sum(model.cache_widths) * 4
    assert most[0] == 6 * (NEW + explain_replies.SLACK) * token, "prompts are shared: rows keep what comes after them"
    assert cost.cache_bytes == most[0] + 2 * 6 * max(lengths) * token, "and prompts wait, or are held by rows"
    assert cost.peak_bytes > cost.cache_bytes
    assert n_tokens <= cost.reply_tokens
    assert mi.explain(model, [request], batch_size=1).cache_bytes < cost.cache_bytes / 4
    one_prompt = mi.explain(model, mi.ReplyRequest(chats()[0], steers(model), n=9, steer="reply", **SAMPLED))
    assert one_prompt.cache_bytes == (27 * (NEW + explain_replies.SLACK) + lengths[0]) * token


def test_rows_that_cannot_be_told_apart_are_refused(model: mi.Model):
    first = mi.ReplyRequest(conversation(), CLEAN, **SAMPLED)
    other = conversation(setup="Tell me about bread.")
    v, w, _ = steers(model)
    for requests, says in (
        ([first, first], "more than once"),
        ([first, mi.ReplyRequest(other, CLEAN, **SAMPLED)], "two conversations with the label 'c'"),
        ([mi.ReplyRequest(conversation(), item, **SAMPLED) for item in (v, w.renamed("v"))], "two interventions"),
        ([mi.ReplyRequest(conversation(), CLEAN, n=[1, 1], **SAMPLED)], "more than once"),
        ([mi.ReplyRequest(conversation(), CLEAN, n=[], **SAMPLED)], "no samples"),
        ([mi.ReplyRequest(conversation(), CLEAN, n=[1, 2])], "all the same"),
        ([], "no requests"),
    ):
        with pytest.raises(UsageError, match=says):
            mi.replies(model, requests)
    again = mi.ReplyRequest(conversation(), CLEAN, steer="reply", **SAMPLED)
    assert mi.replies(model, [first, again])["steer"].tolist() == ["prefill", "reply"]
