"""Each rule of transfer does to its group what it says, and nothing to the others."""

import pytest
import torch

from structure_first.errors import UserError
from structure_first.model.transfer import Transfer, group, transfer
from structure_first.model.transformer import Shape, Transformer

SEEDS = (2, 3)


@pytest.fixture
def trained() -> Transformer:
    model = Transformer(Shape(vocab=9, context=6), SEEDS)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return model


def parts(model: Transformer, name: str) -> list[torch.Tensor]:
    return [parameter for parameter_name, parameter in model.named_parameters() if group(parameter_name) == name]


GROUPS = ["attention", "mlp", "norms", "positions", "embeddings"]


def test_every_parameter_is_in_a_group(trained):
    sizes = {name: sum(part[0].numel() for part in parts(trained, name)) for name in GROUPS}
    assert sum(sizes.values()) == sum(parameter[0].numel() for parameter in trained.parameters())
    assert sizes["attention"] == 2 * (4 * 16 * 16 + 4 * 16) and sizes["norms"] == 2 * 5 * 16


@pytest.mark.parametrize("kept", GROUPS)
def test_only_one_group_is_kept(trained, kept):
    new, fresh = transfer(trained, trained.shape, Transfer.only(kept), SEEDS), Transformer(trained.shape, SEEDS)
    for name in GROUPS:
        expected = trained if name == kept else fresh
        assert all(torch.equal(a, b) for a, b in zip(parts(new, name), parts(expected, name), strict=True)), name


def test_another_vocabulary_and_context_take_the_rows_that_fit(trained):
    new = transfer(trained, Shape(vocab=14, context=3), Transfer(embeddings="keep"), SEEDS)
    fresh = Transformer(new.shape, SEEDS)
    assert torch.equal(new.embedding[:, :9], trained.embedding) and torch.equal(
        new.embedding[:, 9:], fresh.embedding[:, 9:]
    )
    assert torch.equal(new.position, trained.position[:, :3])


def test_mean_gives_every_row_the_mean(trained):
    new = transfer(trained, Shape(vocab=14, context=6), Transfer(embeddings="mean"), SEEDS)
    mean = trained.embedding.mean(1, keepdim=True).expand(-1, 14, -1)
    torch.testing.assert_close(new.embedding, mean)


def test_resample_has_the_rows_mean_and_covariance(trained):
    new = transfer(trained, Shape(vocab=20_000, context=6), Transfer(embeddings="resample"), SEEDS)
    torch.testing.assert_close(new.embedding.mean(1), trained.embedding.mean(1), atol=0.05, rtol=0)
    torch.testing.assert_close(new.embedding[0].T.cov(), trained.embedding[0].T.cov(correction=0), atol=0.1, rtol=0)


def test_permute_keeps_the_values_and_loses_their_order(trained):
    new = transfer(trained, trained.shape, Transfer(attention="permute"), SEEDS)
    for a, b in zip(parts(new, "attention"), parts(trained, "attention"), strict=True):
        assert not torch.equal(a, b)
        assert torch.equal(a.flatten(1).sort().values, b.flatten(1).sort().values)


def test_rotate_keeps_the_singular_values_and_loses_their_directions(trained):
    new = transfer(trained, trained.shape, Transfer(mlp="rotate"), SEEDS)
    for a, b in zip(parts(new, "mlp"), parts(trained, "mlp"), strict=True):
        if a.ndim == 2:  # a vector, and a replica axis
            assert torch.equal(a.sort().values, b.sort().values)
            continue
        torch.testing.assert_close(torch.linalg.svdvals(a), torch.linalg.svdvals(b))
        assert not torch.allclose(a.flatten(1).sort().values, b.flatten(1).sort().values, atol=1e-3)
    repeat = transfer(trained, trained.shape, Transfer(mlp="rotate"), SEEDS)
    assert all(torch.equal(a, b) for a, b in zip(parts(new, "mlp"), parts(repeat, "mlp"), strict=True))


def test_noise_is_in_units_of_the_tensors_deviation(trained):
    new = transfer(trained, Shape(9, 6), Transfer(mlp="noise(0.5)"), SEEDS)
    change = new.blocks[0].mlp.up.weight - trained.blocks[0].mlp.up.weight
    assert change.std().item() == pytest.approx(0.5 * trained.blocks[0].mlp.up.weight.std().item(), rel=0.1)


def test_one_runs_attention_with_anothers_mlps(trained):
    other = Transformer(trained.shape, SEEDS)
    new = transfer(trained, trained.shape, Transfer(mlp="from(eca)"), SEEDS, {"eca": other})
    assert torch.equal(new.blocks[1].mlp.up.weight, other.blocks[1].mlp.up.weight)
    assert torch.equal(new.blocks[1].attention.query.weight, trained.blocks[1].attention.query.weight)
    with pytest.raises(UserError, match="unknown run to transfer from 'ecb'; did you mean 'eca'"):
        transfer(trained, trained.shape, Transfer(mlp="from(ecb)"), SEEDS, {"eca": other})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (dict(attention="kept"), "did you mean 'keep'"),
        (dict(mlp="mean"), "is for embeddings and positions"),
        (dict(norms="noise(x)"), "unknown transfer rule"),
    ],
)
def test_wrong_rules_say_what_is_right(rules, message):
    with pytest.raises(UserError, match=message):
        Transfer(**rules)


def test_bodies_that_differ_cannot_be_transferred(trained):
    with pytest.raises(UserError, match="width must agree"):
        transfer(trained, Shape(9, 6, width=32), Transfer(), SEEDS)


def test_a_tied_stage_one_gives_both_tables_the_same_rows():
    tied = Transformer(Shape(vocab=9, context=6, tied=True), SEEDS)
    new = transfer(tied, Shape(vocab=14, context=6), Transfer(embeddings="resample"), SEEDS)
    assert torch.equal(new.embedding, new.unembedding) and not torch.equal(new.embedding[0], new.embedding[1])
