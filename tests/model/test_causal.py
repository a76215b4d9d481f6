"""A model of another library in our loop: trained as our own is, on tokens of its own, its tables untouched."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.model.causal import Causal, fresh, lent_vocabulary
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import to_hf
from structure_first.training.loop import fit
from structure_first.training.stage import Stage

COMMON = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=40, max_position_embeddings=64)
GATED = COMMON | dict(intermediate_size=48, num_key_value_heads=1, bos_token_id=0, eos_token_id=0)
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**COMMON, bos_token_id=0, eos_token_id=0)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GATED, pad_token_id=30)),
    "llama tied": lambda: LlamaForCausalLM(LlamaConfig(**GATED, tie_word_embeddings=True)),
    "qwen": lambda: Qwen3ForCausalLM(Qwen3Config(**GATED, head_dim=16, tie_word_embeddings=True)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**GATED)),
}


def made(name: str, seed: int = 0):
    torch.manual_seed(seed)
    return MODELS[name]()


def test_it_trains_as_our_own_does():
    """The same weights, batches and optimizer: what rounding makes of them is all that differs."""
    task, stage = source("union", length=8, vocab=12), Stage(steps=20, batch=16, lr=3e-3, warmup=5, held_out=32)
    ours = Transformer(Shape(task.vocab, task.length - 1, width=32, heads=2, init=0.1), [3])
    theirs = to_hf(ours)
    expected = fit(ours, task, stage)
    found = fit(Causal(theirs, 3), task, stage)
    assert [row["value"] for row in found] == pytest.approx([row["value"] for row in expected], rel=1e-3)
    tokens = torch.randint(task.vocab, (1, 4, task.length - 1))
    torch.testing.assert_close(Causal(theirs, 3)(tokens), ours(tokens), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_its_own_tables_are_set_aside_and_put_back(name):
    model = made(name)
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    tables, values = [end.weight for end in ends], [end.weight.clone() for end in ends]
    padding, names = ends[0].padding_idx, [each for each, _ in model.named_parameters()]
    model.train()
    with lent_vocabulary(model, 50, seed=1) as replica:
        assert not model.training and ends[0].weight.shape == (50, 32) == ends[1].weight.shape
        assert (ends[0].weight is ends[1].weight) == (tables[0] is tables[1])
        assert replica(torch.randint(50, (1, 3, 7))).shape == (1, 3, 7, 50)
        assert ends[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.training and all(end.weight is table for end, table in zip(ends, tables, strict=True))
    assert all(torch.equal(end.weight, value) for end, value in zip(ends, values, strict=True))
    assert ends[0].padding_idx == padding and [each for each, _ in model.named_parameters()] == names


def test_they_are_back_after_an_error():
    model = made("llama")
    table = model.lm_head.weight
    with pytest.raises(ZeroDivisionError), lent_vocabulary(model, 50, seed=1):
        raise ZeroDivisionError
    assert model.lm_head.weight is table


def test_training_it_trains_the_model_in_place_and_a_copy_leaves_it_alone():
    model = made("gpt2")
    with lent_vocabulary(model, 12, seed=0) as replica:
        before = {name: each.detach().clone() for name, each in model.named_parameters()}
        copy = replica.pick([0])
        for trained in (copy, replica):
            same = [torch.equal(each, before[name]) for name, each in model.named_parameters()]
            assert all(same)
            fit(trained, source("identity", length=4, vocab=10), Stage(steps=2, batch=4, warmup=0, held_out=4))
        moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    assert moved == set(before)


def test_what_is_frozen_stays():
    model = made("llama")
    model.model.norm.weight.requires_grad_(False)
    with lent_vocabulary(model, 12, seed=0) as replica:
        assert "model.norm.weight" not in dict(replica.named_parameters())
        fit(replica, source("identity", length=4, vocab=10), Stage(steps=2, batch=4, warmup=0, held_out=4))
    assert torch.equal(model.model.norm.weight, torch.ones(32))


def test_fresh_tables_follow_from_the_seed():
    model = made("llama")
    one, again, other = (fresh(model, seed) for seed in (1, 1, 2))
    for table, drawn in one.items():
        assert drawn.shape == table.shape and torch.equal(drawn, again[table]) and not torch.equal(drawn, other[table])
    assert len(one) == 2 and len(fresh(made("qwen"), 0)) == 1


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (lambda: GPT2Model(MODELS["gpt2"]().config), "GPT2Model has no embeddings and head that can be set aside"),
        (lambda: BertLMHeadModel(BertConfig(**COMMON, intermediate_size=48)), "sees later tokens"),
        (lambda: made("llama").bfloat16(), "is in torch.bfloat16.*; load it with dtype=torch.float32"),
        (lambda: torch.nn.Linear(3, 3), "Linear has no embeddings and head"),
    ],
)
def test_what_it_cannot_read_is_one_line(model, line):
    with pytest.raises(UserError, match=line) as said, lent_vocabulary(model(), 12, seed=0):
        pass
    assert "\n" not in str(said.value)
