"""The attention scores against models whose heads look where we made them look."""

import torch

from structure_first.evidence import attention
from structure_first.model.transformer import Shape, Transformer


def test_examples_are_full_and_end_with_their_query():
    batch = attention.example(pairs=4, count=5)
    assert batch.tokens.shape == (1, 5, 9)
    for tokens in batch.tokens[0].tolist():
        assert tokens[-1] - 30 in tokens[:-1:2]


def test_an_even_head_takes_the_same_from_everywhere_and_a_previous_token_head_all():
    model = Transformer(Shape(vocab=256, context=9, heads=1, width=16), (0, 1))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".attention." in name:
                parameter.zero_()
        # Positions on a circle; the first layer's queries are turned back by one place.
        angle = torch.arange(9) * 2 * torch.pi / 9
        model.embedding.zero_()
        model.position.zero_()
        model.position[..., 0], model.position[..., 1] = angle.cos(), angle.sin()
        block = model.blocks[0].attention
        turn = torch.tensor([[angle[1].cos(), -angle[1].sin()], [angle[1].sin(), angle[1].cos()]])
        block.query.weight[:, :2, :2] = 100 * turn
        block.key_value.weight[:, :2, :2] = torch.eye(2)
    looks = attention.looks(model, pairs=4, count=20).set_index(["layer", "from"])["share"]
    assert looks[0, "value -> key"] > 0.99 and looks[0, "query -> key"] < 0.01
    assert abs(looks[1, "query -> value"] - 1 / 9) < 1e-4
    assert abs(looks[1, "value -> key"] - sum(1 / n for n in (2, 4, 6, 8)) / 4) < 1e-4
