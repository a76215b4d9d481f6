"""Stage one for a model of `transformers`: learnt, repeatable, said plainly, and nothing else of the model changed."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.pretraining import warm
from structure_first.pretraining.warm import stage_for, warm_up
from structure_first.training.compute import Compute
from structure_first.training.loop import Run, fit

COPY = source("identity", length=6, vocab=8)
SIZE = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
quietly = partial(warm_up, say=lambda line: None)


def llama(vocab: int = 90):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZE, intermediate_size=64, vocab_size=vocab))


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**SIZE, vocab_size=90))


def state(model) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def same(one, other) -> set[str]:
    return {name for name in one if torch.equal(one[name], other[name])}


def test_it_learns_the_source_and_keeps_the_models_own_vocabulary(capsys):
    model = llama()
    before = state(model)
    found = warm_up(model, COPY, steps=600)
    said = capsys.readouterr().out
    assert found.learnt and found.accuracy >= 0.99 and found.updates < 600
    assert found.tokens == found.updates * 64 * COPY.length
    words = {"embed_tokens", "lm_head"}
    kept = {name for name in before if words & set(name.split("."))}
    assert same(before, state(model)) == kept and kept
    assert "at most 600 updates" in said and "GB" in said and "minutes" in said
    assert "identity was learnt: held-out accuracy" in said and "are back, as they were" in said


def test_the_same_seed_gives_the_same_weights_and_another_others():
    found = []
    for seed in (5, 5, 6):
        model = gpt2()
        quietly(model, COPY, steps=10, seed=seed)
        found.append(state(model))
    assert same(found[0], found[1]) == set(found[0])
    assert same(found[0], found[2]) == {"transformer.wte.weight", "lm_head.weight"}


def test_a_vocabulary_smaller_than_the_sources_will_do():
    assert quietly(llama(vocab=3), COPY, steps=5).updates == 5


def test_embeddings_are_drawn_anew_where_that_is_asked():
    model, again = llama(), llama()
    before = state(model)
    for each in (model, again):
        quietly(each, COPY, steps=5, embeddings="fresh")
    assert not same(before, state(model)) and same(state(model), state(again)) == set(before)
    assert model.lm_head.weight.shape == before["lm_head.weight"].shape


def test_what_was_not_learnt_is_said_plainly(capsys):
    found = warm_up(gpt2(), COPY, steps=3)
    assert found.learnt is False and "identity was NOT learnt" in capsys.readouterr().out
    assert "an unlearnt stage one transfers nothing" in str(found)
    mixed = quietly(gpt2(), source("identity+dyck", length=6, vocab=8, k=4), steps=3)
    assert mixed.learnt is None and "NOT" not in str(mixed)


def test_a_stopped_one_goes_on_and_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole, parts, path = gpt2(), gpt2(), tmp_path / "stage.safetensors"
    quietly(whole, COPY, steps=8)
    monkeypatch.setattr(warm, "timed", lambda *_: 1.0)
    monkeypatch.setattr(warm, "fit", partial(fit, checkpoint_seconds=0))
    real = Run.update

    def update(self, *arguments):
        if self.step == 4:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Run, "update", update)
    with pytest.raises(KeyboardInterrupt):
        quietly(parts, COPY, steps=8, checkpoint=path)
    monkeypatch.setattr(Run, "update", real)
    with pytest.raises(UserError, match="belongs to other settings"):
        quietly(llama(), COPY, steps=8, checkpoint=path)
    again = gpt2()
    quietly(again, COPY, steps=8, checkpoint=path)
    assert same(state(again), state(whole)) == set(state(whole))


def test_what_it_takes_is_counted_from_the_model():
    """FLOPs as two for each weight of a product and token, and the scores; AdamW's state as two of each weight."""
    said = []
    model = llama()
    warm_up(model, COPY, steps=4, batch=8, say=said.append)
    time, width, inner = COPY.length - 1, 48, 64
    products = 2 * time * (2 * (4 * width * width + 3 * width * inner) + width * COPY.vocab)
    scores = 2 * 4 * time * time * width
    assert f"{4 * 8 * 3 * (products + scores) / 1e15:.3g} PFLOPs" in said[0]
    weights = sum(each.numel() for each in model.parameters()) - 2 * (90 - COPY.vocab) * width
    assert f"weights {4 * weights / 1e9:.2g}, " in said[0] and f"AdamW {8 * weights / 1e9:.2g}, " in said[0]


def test_the_rate_follows_the_width():
    stage = stage_for(llama(), COPY)
    assert stage.lr == 3e-3 and stage.steps == 2_500
    with torch.device("meta"):
        wide = LlamaForCausalLM(LlamaConfig(hidden_size=1536, num_hidden_layers=1))
    assert stage_for(wide, COPY).lr == pytest.approx(2.5e-4)
    assert stage_for(wide, COPY, lr=1e-3, steps=7).warmup == 3


@pytest.mark.parametrize(
    ("arguments", "options", "line"),
    [
        ([COPY], {"checkpoint": Path("x"), "dropout": 0.1}, "unknown setting of stage one 'dropout'"),
        (["sets"], {}, "unknown source 'sets'; did you mean 'set'"),
        (["set"], {}, "set has sequences of 129 tokens, the model a context of 64; give the source a shorter length"),
        ([COPY], {"seed": -1}, "a seed must be a whole number from 0"),
        ([COPY], {"seed": 1 << 63}, "a seed must be a whole number from 0"),
        ([COPY], {"step": 3}, "unknown setting of stage one 'step'; did you mean 'steps'"),
        ([COPY], {"steps": 0}, "steps must be 1 or more"),
        ([COPY], {"embeddings": "mean"}, "unknown rule for embeddings 'mean'"),
        ([COPY], {"compute": Compute(micro_batch=1), "batch": 1 << 25}, "batch must be 1 or more, and at most"),
        ([COPY], {"batch": 1 << 24, "held_out": 1 << 20}, "GB can be used; micro_batch [0-9,]+ would fit"),
    ],
)
def test_bad_calls_are_one_line_and_leave_the_model_as_it_was(arguments, options, line):
    model = llama()
    before = state(model)
    with pytest.raises(UserError, match=line) as said:
        quietly(model, *arguments, **options)
    assert "\n" not in str(said.value) and same(before, state(model)) == set(before)


def test_a_loss_that_is_no_longer_finite_is_said():
    with pytest.raises(UserError, match=r"no longer finite after \d+ updates; lower its lr"):
        quietly(gpt2(), COPY, steps=50, lr=1000.0, warmup=0, clip=None)


def test_after_a_loss_that_is_no_longer_finite_a_lower_rate_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "timed", lambda *_: 1.0)
    with pytest.raises(UserError, match="lower its lr"):
        quietly(gpt2(), COPY, steps=20, lr=1000.0, warmup=0, clip=None, checkpoint=tmp_path / "stage.safetensors")
    assert quietly(gpt2(), COPY, steps=3, checkpoint=tmp_path / "stage.safetensors").updates == 3


def test_what_else_a_source_measures_is_not_in_the_way(monkeypatch):
    monkeypatch.setattr(warm, "timed", lambda *_: 1.0)
    packed = replace(COPY, in_sight=lambda tokens: tokens > 3)
    assert quietly(gpt2(), packed, steps=3).updates == 3
