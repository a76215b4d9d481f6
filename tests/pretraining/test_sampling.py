"""Text from a run: seeded, from the likeliest tokens alone where that is asked, and refused in one line."""

import math
from dataclasses import replace

import pytest
import torch

from structure_first.data.corpora import tokenisers
from structure_first.errors import UserError
from structure_first.model import weights
from structure_first.model.transformer import Shape, Transformer
from structure_first.pretraining.sampling import following, sample

BYTES = tokenisers.Bytes()


def run_of(folder, model: Transformer, made=BYTES):
    """A run's folder, as far as sampling reads it."""
    weights.save(folder / "weights" / "stage_2.safetensors", model)
    tokenisers.save(made, folder / "export")
    return folder


@torch.no_grad()
def echoing(vocab: int = 256) -> Transformer:
    """A model whose likeliest next token is the next one, as of the alphabet: one token tells, all else is 0."""
    model = Transformer(Shape(vocab, 8, layers=1, heads=1, width=vocab), [0])
    for parameter in model.parameters():
        parameter.zero_()
    model.norm.scale.fill_(1.0)
    model.embedding[0] = torch.eye(vocab)
    model.unembedding[0] = torch.eye(vocab).roll(1, 0)
    return model


def test_the_likeliest_text_goes_on_beyond_the_context(tmp_path):
    run = run_of(tmp_path, echoing())
    assert sample(run, "ab", tokens=20, top_k=1) == "abcdefghijklmnopqrstuv"


def test_what_was_trained_with_dropout_is_sampled_without(tmp_path):
    model = echoing()
    model.shape = replace(model.shape, dropout=0.9)
    assert sample(run_of(tmp_path, model), "ab", tokens=5, top_k=1) == "abcdefg"


def test_the_same_seed_gives_the_same_text(tmp_path):
    run = run_of(tmp_path, Transformer(Shape(256, 8), [0]))
    one, again, other = (sample(run, "x", tokens=30, seed=seed) for seed in (1, 1, 2))
    assert one == again != other and one.startswith("x")


def test_tokens_come_as_often_as_the_temperature_says():
    model, random = echoing(8), torch.Generator().manual_seed(0)
    logits = model(torch.tensor([[[5]]])).flatten()
    for temperature in (1.0, 3.0):
        drawn = [following(model, torch.tensor([5]), temperature, None, random).item() for _ in range(150)]
        share = (logits / temperature).softmax(-1)[6].item()
        assert drawn.count(6) / 150 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 150))
    few = {following(model, torch.tensor([5]), 100.0, 1, random).item() for _ in range(50)}
    assert few == {6}


def test_the_coldest_text_is_the_likeliest(tmp_path):
    assert sample(run_of(tmp_path, echoing()), "ab", tokens=5, temperature=1e-40) == "abcdefg"


def test_a_model_that_diverged_is_one_line(tmp_path):
    model = echoing()
    with torch.no_grad():
        model.unembedding[0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="logits are not finite: its training diverged; train again with a lower lr"):
        sample(run_of(tmp_path, model))


def test_a_tokeniser_that_is_no_text_is_one_line(tmp_path):
    run = run_of(tmp_path, echoing())
    (run / "export" / tokenisers.FILE).write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"cannot read the tokeniser .*tokenizer\.json .*; name a tokenizer.json of"):
        sample(run)


def test_each_tokeniser_is_known_again(tmp_path):
    text = "caf\u00e9 au lait " * 20
    for made in (BYTES, tokenisers.Characters(), tokenisers.tokeniser("bpe:300", lambda: [text])):
        tokenisers.save(made, tmp_path / made.name)
        found = tokenisers.saved(tmp_path / made.name / tokenisers.FILE)
        assert found.to_json() == made.to_json() and found.separator == made.separator
        tokens, _ = made.encode([text])
        assert found.decode(tokens) == made.decode(tokens)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tokens": 0}, "tokens must be from 1 to"),
        ({"top_k": 0}, "top_k must be from 1 to"),
        ({"temperature": 0.0}, "temperature must be above 0 and at most 100"),
        ({"temperature": math.nan}, "temperature must be above 0"),
        ({"seed": -1}, "a seed must be a whole number"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_a_bad_call_is_one_line(tmp_path, options, line):
    with pytest.raises(UserError, match=line):
        sample(run_of(tmp_path, echoing()), **options)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UserError, match=r"holds no trained run \(.*stage_2.safetensors is missing\); name the folder"):
        sample(tmp_path)
    run = run_of(tmp_path, echoing())
    (run / "weights" / "stage_2.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="cannot read weights from"):
        sample(run)
