"""Each rule of transfer does to its group what it says, and nothing to the others."""

import pytest
import torch

from structure_first.errors import UserError
from structure_first.model.transfer import ONLY, Transfer, group, transfer
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


def numbered() -> Transformer:
    """A model whose weights count upwards, through every tensor anew: where a value stands says where it came from."""
    model = Transformer(Shape(vocab=9, context=6), SEEDS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(parameter[0].numel()).view(parameter.shape[1:]))
    return model


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


def test_every_parameter_is_in_the_group_of_its_name(trained):
    of = {name: group(name) for name, _ in trained.named_parameters()}
    assert of["embedding"] == of["unembedding"] == "embeddings" and of["position"] == "positions"
    assert of["norm.scale"] == of["blocks.0.mlp_norm.shift"] == of["blocks.1.attention_norm.scale"] == "norms"
    assert of["blocks.1.mlp.down.bias"] == "mlp" and of["blocks.0.attention.out.bias"] == "attention"


RULES_ALONE = ["keep", "rescale", "permute", "rotate", "noise(0.5)", "from(x)"]


@pytest.mark.parametrize("rule", [*RULES_ALONE, *ONLY])
def test_a_replica_starts_from_its_own_in_stage_one_and_from_its_seed_alone(trained, rule):
    """So replicas are neither exchanged nor do they share what is drawn, and the others do not matter."""
    bodies = GROUPS if rule in RULES_ALONE else ONLY[rule]
    rules, shape, other = Transfer(**dict.fromkeys(bodies, rule)), Shape(12, 8), Transformer(trained.shape, (5, 6))
    together = transfer(trained, shape, rules, SEEDS, {"x": other})
    for replica, seed in enumerate(SEEDS):
        one = transfer(trained.pick([replica]), shape, rules, [seed], {"x": other.pick([replica])})
        for a, b in zip(together.parameters(), one.parameters(), strict=True):
            assert torch.equal(a[replica], b[0])


def test_each_tensor_and_each_seed_has_its_own_permutation():
    new = transfer(numbered(), Shape(9, 6), Transfer(attention="permute", mlp="permute"), (2, 3))
    orders = [
        parameter[replica] for part in ("attention", "mlp") for parameter in parts(new, part) for replica in (0, 1)
    ]
    orders = [tuple(order.flatten().tolist()) for order in orders]
    assert len(set(orders)) == len(orders)
    again = transfer(numbered(), Shape(9, 6), Transfer(attention="permute"), (3, 3))
    for a, b in zip(parts(new, "attention"), parts(again, "attention"), strict=True):
        assert torch.equal(a[1], b[0]) and torch.equal(b[0], b[1])


def test_draw_is_resample_whichever_way_rounding_turns_the_eigenvectors(trained, monkeypatch):
    shape, eigh = Shape(vocab=20_000, context=6), torch.linalg.eigh
    new = transfer(trained, shape, Transfer(embeddings="draw"), SEEDS)
    torch.testing.assert_close(new.embedding.mean(1), trained.embedding.mean(1), atol=0.05, rtol=0)
    torch.testing.assert_close(new.embedding[0].T.cov(), trained.embedding[0].T.cov(correction=0), atol=0.1, rtol=0)

    def turned(covariance):
        scale, basis = eigh(covariance)
        return scale, basis * torch.tensor([1.0, -1.0]).repeat(len(basis) // 2)

    monkeypatch.setattr(torch.linalg, "eigh", turned)
    torch.testing.assert_close(transfer(trained, shape, Transfer(embeddings="draw"), SEEDS).embedding, new.embedding)
    monkeypatch.undo()
    with torch.no_grad():
        trained.embedding.mul_(1 + 1e-6 * torch.randn(trained.embedding.shape))
    near = transfer(trained, shape, Transfer(embeddings="draw"), SEEDS)
    torch.testing.assert_close(near.embedding, new.embedding, atol=1e-3, rtol=0)


@pytest.mark.parametrize("vocab", [5, 9, 14])
def test_match_keeps_the_rows_of_stage_one_and_gives_the_others_their_mean(trained, vocab):
    new, both = transfer(trained, Shape(vocab, 6), Transfer(embeddings="match"), SEEDS), min(vocab, 9)
    for name in ("embedding", "unembedding"):
        found, before = new.get_parameter(name), trained.get_parameter(name)
        assert torch.equal(found[:, :both], before[:, :both])
        torch.testing.assert_close(found[:, both:], before.mean(1, keepdim=True).expand(-1, vocab - both, -1))


@pytest.mark.parametrize(("context", "kept"), [(4, True), (6, True), (7, False)])
def test_positions_that_fit_are_kept_and_others_all_start_afresh(trained, context, kept):
    new = transfer(trained, Shape(9, context), Transfer(positions="fits"), SEEDS)
    expected = trained.position[:, :context] if kept else Transformer(new.shape, SEEDS).position
    assert torch.equal(new.position, expected)


def test_rescale_keeps_directions_and_takes_the_size_of_fresh_weights(trained):
    shape = Shape(vocab=14, context=3, init=0.1)
    new = transfer(trained, shape, Transfer(**dict.fromkeys(GROUPS, "rescale")), SEEDS)
    fresh = Transformer(shape, SEEDS)
    for (name, a), b, c in zip(new.named_parameters(), trained.parameters(), fresh.parameters(), strict=True):
        for after, before, anew in zip(a, b, c, strict=True):
            if before.ndim == 1:
                assert torch.equal(after, before)
                continue
            rows = min(len(after), len(before))
            ratio = (after[:rows] / before[:rows]).flatten()
            torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
            size = ratio[0] * before.square().mean().sqrt()
            torch.testing.assert_close(size, anew.square().mean().sqrt(), msg=name)
    with torch.no_grad():
        trained.position.zero_()
    assert not transfer(trained, trained.shape, Transfer(positions="rescale"), SEEDS).position.any()


def test_permute_keeps_the_values_and_loses_their_order(trained):
    new = transfer(trained, trained.shape, Transfer(attention="permute"), SEEDS)
    for a, b in zip(parts(new, "attention"), parts(trained, "attention"), strict=True):
        assert not torch.equal(a, b)
        assert torch.equal(a.flatten(1).sort().values, b.flatten(1).sort().values)
        for axis in range(1, a.ndim if a.ndim > 2 else 1):
            sums = (each.sum(axis).sort().values for each in (a, b))
            assert not torch.allclose(*sums), "neither rows nor columns stay together"


def test_rotate_keeps_the_singular_values_and_loses_their_directions(trained):
    new = transfer(trained, trained.shape, Transfer(mlp="rotate"), SEEDS)
    for a, b in zip(parts(new, "mlp"), parts(trained, "mlp"), strict=True):
        if a.ndim == 2:  # a vector, and a replica axis
            assert torch.equal(a.sort().values, b.sort().values) and not torch.equal(a, b)
            continue
        torch.testing.assert_close(torch.linalg.svdvals(a), torch.linalg.svdvals(b))
        assert not torch.allclose(a.mT @ a, b.mT @ b, atol=0.1), "what it reads"
        assert not torch.allclose(a @ a.mT, b @ b.mT, atol=0.1), "what it writes"
    repeat = transfer(trained, trained.shape, Transfer(mlp="rotate"), SEEDS)
    assert all(torch.equal(a, b) for a, b in zip(parts(new, "mlp"), parts(repeat, "mlp"), strict=True))


def test_a_rotation_is_as_likely_to_mirror_as_not(trained):
    new = transfer(trained, trained.shape, Transfer(attention="rotate"), SEEDS)
    pairs = zip(parts(new, "attention"), parts(trained, "attention"), strict=True)
    mirrored = torch.cat([torch.linalg.det(a) * torch.linalg.det(b) < 0 for a, b in pairs if a.shape == a.mT.shape])
    assert mirrored.any() and not mirrored.all()


def test_noise_is_in_units_of_each_tensors_own_deviation(trained):
    with torch.no_grad():
        for number, parameter in enumerate(trained.parameters()):
            parameter.mul_(torch.tensor([1.0, 8.0]).view(2, *[1] * (parameter.ndim - 1)) * 3.0**number)
    new = transfer(trained, Shape(9, 6), Transfer(**dict.fromkeys(GROUPS, "noise(0.5)")), SEEDS)
    for a, b in zip(new.parameters(), trained.parameters(), strict=True):
        for after, before in zip(a, b, strict=True):
            rough = 0.15 if before.ndim == 2 else 0.6  # of so few numbers
            assert (after - before).std().item() == pytest.approx(0.5 * before.std().item(), rel=rough)


def test_one_runs_attention_with_anothers_mlps(trained):
    other = Transformer(trained.shape, SEEDS)
    new = transfer(trained, trained.shape, Transfer(mlp="from(eca)"), SEEDS, {"eca": other})
    assert torch.equal(new.blocks[1].mlp.up.weight, other.blocks[1].mlp.up.weight)
    assert torch.equal(new.blocks[1].attention.query.weight, trained.blocks[1].attention.query.weight)
    with pytest.raises(UserError, match="unknown run to transfer from 'ecb'; did you mean 'eca'"):
        transfer(trained, trained.shape, Transfer(mlp="from(ecb)"), SEEDS, {"eca": other})


@pytest.mark.parametrize("part", ["mlp", "embeddings", "positions"])
@pytest.mark.parametrize("body", [dict(width=32), dict(heads=2), dict(layers=1), dict(layers=3)])
def test_another_runs_body_of_another_size_is_refused(trained, body, part):
    other, ((name, size),) = Transformer(Shape(9, 6, **body), SEEDS), body.items()
    said = rf"run 'eca' has 2 replicas of Shape\(.*{name}={size}, .*, stage two 2 of .*; replicas, layers, heads, width"
    with pytest.raises(UserError, match=f"cannot transfer: {said} must agree"):
        transfer(trained, trained.shape, Transfer(**{part: "from(eca)"}), SEEDS, {"eca": other})


def test_another_run_of_more_replicas_is_refused_and_of_another_vocabulary_gives_the_rows_it_has(trained):
    with pytest.raises(UserError, match=r"cannot transfer: run 'eca' has 1 replicas of .*, stage two 2 of"):
        transfer(trained, trained.shape, Transfer(mlp="from(eca)"), SEEDS, {"eca": trained.pick([0])})
    other = Transformer(Shape(vocab=5, context=4, tied=True), (7, 8))
    new = transfer(trained, trained.shape, Transfer(embeddings="from(eca)"), SEEDS, {"eca": other})
    fresh = Transformer(trained.shape, SEEDS)
    for name in ("embedding", "unembedding"):
        found, rest = new.get_parameter(name), fresh.get_parameter(name)
        assert torch.equal(found[:, :5], other.embedding) and torch.equal(found[:, 5:], rest[:, 5:])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (dict(attention="kept"), "did you mean 'keep'"),
        (dict(mlp="mean"), "is for embeddings and positions, not for mlp"),
        (dict(positions="match"), "is for embeddings, not for positions"),
        (dict(embeddings="fits"), "is for positions, not for embeddings"),
        (dict(norms="noise(sigma)"), "unknown transfer rule"),
    ],
)
def test_wrong_rules_say_what_is_right(rules, message):
    with pytest.raises(UserError, match=message):
        Transfer(**rules)


def test_a_group_that_there_is_not_is_no_group_kept():
    with pytest.raises(UserError, match="unknown group of weights 'attentoin'; did you mean 'attention'"):
        Transfer.only("attentoin")


def test_the_loudest_noise_is_allowed_and_none_louder():
    assert Transfer(norms="noise(1000)").norms == "noise(1000)"
    with pytest.raises(UserError, match="at most 1000"):
        Transfer(norms="noise(1000.1)")


@pytest.mark.parametrize("body", [dict(width=32), dict(heads=2), dict(layers=3)])
def test_bodies_that_differ_cannot_be_transferred(trained, body):
    with pytest.raises(UserError, match="replicas, layers, heads, width must agree"):
        transfer(trained, Shape(9, 6, **body), Transfer(), SEEDS)


def test_another_number_of_replicas_cannot_be_transferred(trained):
    with pytest.raises(UserError, match=r"stage one has 2 replicas .* stage two 1 of"):
        transfer(trained, trained.shape, Transfer(), SEEDS[:1])


def test_a_tied_stage_one_gives_both_tables_the_same_rows():
    tied = Transformer(Shape(vocab=9, context=6, tied=True), SEEDS)
    new = transfer(tied, Shape(vocab=14, context=6), Transfer(embeddings="resample"), SEEDS)
    assert torch.equal(new.embedding, new.unembedding) and not torch.equal(new.embedding[0], new.embedding[1])
