"""The transformer against Hugging Face's GPT-2, and against itself replica by replica."""

import re
from math import inf, nan

import pytest
import torch

from structure_first.errors import UserError
from structure_first.model import weights
from structure_first.model.transformer import Shape, Transformer


def perturbed(shape: Shape, seeds=(0,)) -> Transformer:
    """A model whose every weight matters: norms and biases too are off their initial values."""
    model = Transformer(shape, seeds)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return model


def tokens_for(model: Transformer, batch: int = 3, time: int | None = None) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(model.shape.vocab, (model.replicas, batch, time or model.shape.context), generator=random)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("heads", "width"), [(4, 16), (2, 64)])  # the narrow attention, and torch's fused one
def test_logits_and_gradients_equal_hugging_face(tied, heads, width):
    model = perturbed(Shape(vocab=37, context=19, layers=2, heads=heads, width=width, tied=tied))
    theirs = weights.to_hf(model)
    tokens = tokens_for(model)
    ours, reference = model(tokens)[0], theirs(tokens[0]).logits
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)
    ours.square().mean().backward()
    reference.square().mean().backward()
    gradients = Transformer(model.shape)
    with torch.no_grad():
        for mine, parameter in zip(gradients.parameters(), model.parameters(), strict=True):
            mine.copy_(parameter.grad)
    for name, gradient in weights.hf_state(gradients).items():
        torch.testing.assert_close(gradient, theirs.get_parameter(name).grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_hugging_face_comes_in_and_goes_out_unchanged(tied, tmp_path):
    from transformers import AutoModelForCausalLM

    model = perturbed(Shape(vocab=21, context=9, layers=3, heads=2, width=8, tied=tied), seeds=(0, 1))
    again = weights.from_hf(weights.to_hf(model, replica=1))
    for mine, back in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine[1], back[0])
    weights.export(tmp_path, model, replica=1)
    tokens = tokens_for(model)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)(tokens[1]).logits
    torch.testing.assert_close(model(tokens)[1], loaded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("variant", "only"),
    [
        (dict(scale_attn_weights=False), "True"),
        (dict(scale_attn_by_inverse_layer_idx=True), "False"),
        (dict(layer_norm_epsilon=1e-6), "1e-05"),
        (dict(activation_function="gelu"), "gelu_new or gelu_pytorch_tanh"),
        (dict(activation_function="relu"), "gelu_new or gelu_pytorch_tanh"),
        (dict(n_inner=24), "32"),
        (dict(add_cross_attention=True), "False"),
        (dict(attn_pdrop=0.3), "0.1"),
    ],
    ids=str,
)
def test_a_gpt2_of_another_make_is_refused(variant, only):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = dict(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    theirs = GPT2LMHeadModel(GPT2Config(**sizes | variant))
    name = next(iter(variant))
    message = f"cannot take over a GPT-2 whose {name} is {variant[name]}: only {only} is modelled here"
    with pytest.raises(UserError, match=re.escape(message)):
        weights.from_hf(theirs)
    weights.from_hf(GPT2LMHeadModel(GPT2Config(**sizes, n_inner=32, activation_function="gelu_pytorch_tanh")))


def test_a_replica_is_the_same_alone_and_among_others():
    shape = Shape(vocab=11, context=8)
    together, alone = Transformer(shape, (3, 5)), Transformer(shape, (5,))
    tokens = tokens_for(together)
    torch.testing.assert_close(together(tokens)[1:], alone(tokens[1:]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("width", [16, 64])
def test_computing_only_some_positions_changes_nothing(width):
    model = perturbed(Shape(vocab=11, context=12, width=width), seeds=(0, 1))
    tokens = tokens_for(model)
    at = torch.tensor([[[1, 7], [0, 1], [10, 11]], [[11, 11], [3, 4], [2, 9]]])
    expected = model(tokens).gather(2, at[..., None].expand(-1, -1, -1, 11))
    torch.testing.assert_close(expected, model(tokens, at), atol=1e-5, rtol=1e-5)


def test_the_attention_pattern_is_causal_and_sums_to_one():
    model = perturbed(Shape(vocab=11, context=12), seeds=(0, 1))
    pattern = model.blocks[0].attention.weights(model.embed(tokens_for(model)))
    assert pattern.shape == (2, 3, 4, 12, 12)
    assert not pattern.triu(1).any()
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 3, 4, 12))


def test_saved_weights_come_back_and_broken_ones_say_so(tmp_path):
    model = perturbed(Shape(vocab=11, context=12), seeds=(4, 9))
    paths = [tmp_path / f"{seed}.safetensors" for seed in model.seeds]
    for replica, path in enumerate(paths):
        weights.save(path, model, replica)
    again = weights.load(*paths)
    assert again.seeds == (4, 9) and again.shape == model.shape
    for mine, back in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, back)
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read weights from .*9\.safetensors"):
        weights.load(*paths)


@pytest.mark.parametrize("wrong", [0, 1])
def test_weights_that_are_not_those_of_the_first_files_shape_name_their_own_file(tmp_path, wrong):
    """A row would fill a table, and the heads of a model are in no tensor's size."""
    paths = [tmp_path / f"{replica}.safetensors" for replica in range(3)]
    for path in paths:
        weights.save(path, Transformer(Shape(vocab=11, context=12)))
    tensors, meta = weights.read(paths[wrong])
    row, more = {"position": tensors["position"][:1]}, {"more": torch.ones(1)}
    less = {name: tensor for name, tensor in tensors.items() if name != "norm.scale"}
    for changed, said in (
        (tensors | row, "its position is not that of Shape"),
        (tensors | more, "'more'"),
        (less, "'norm.scale'"),
    ):
        weights.write(paths[wrong], changed, meta)
        with pytest.raises(UserError, match=rf"cannot read weights from .*/{wrong}\.safetensors: {said}.*; remove"):
            weights.load(*paths)
    weights.write(paths[wrong], tensors, meta | {"shape": meta["shape"] | {"heads": 2}})
    other = f"{wrong or 1}.safetensors"  # of the first, the second is another
    with pytest.raises(UserError, match=rf"cannot read weights from .*/{other}: it holds Shape.*, not"):
        weights.load(*paths)


def test_some_replicas_alone_are_copies_and_draw_no_fresh_weights(monkeypatch):
    model = perturbed(Shape(vocab=11, context=12), seeds=(4, 9, 2)).eval()
    monkeypatch.setattr(Transformer, "reset", None)
    part = model.pick([2, 0])
    assert part.seeds == (2, 4) and not part.training
    for mine, whole in zip(part.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, whole[[2, 0]]) and mine.untyped_storage() is not whole.untyped_storage()


@pytest.mark.parametrize(
    "wrong",
    [dict(width=10), dict(layers=0), dict(vocab=0)]
    + [dict.fromkeys([name], 10**9) for name in ("vocab", "context", "layers", "heads", "width")]
    + [dict(dropout=value) for value in (-0.1, 1.0, 2.0, nan)]
    + [dict.fromkeys([name], value) for name in ("init", "init_embedding") for value in (-1.0, 1e308, inf, nan)],
    ids=str,
)
def test_impossible_shapes_say_why(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Shape(**(dict(vocab=11, context=12) | wrong))


def test_a_sequence_longer_than_the_context_says_so():
    model = Transformer(Shape(vocab=11, context=4))
    with pytest.raises(UserError, match="do not fit in a context of 4"):
        model(torch.zeros(1, 1, 5, dtype=torch.long))


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_that_no_table_holds_says_so(seed):
    with pytest.raises(UserError, match=f"a seed must be a whole number from 0 to {2**63 - 1}, not {seed}"):
        Transformer(Shape(vocab=11, context=4), (0, seed))
    Transformer(Shape(vocab=11, context=4), (2**63 - 1,))
