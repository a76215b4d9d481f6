"""Named sizes are those of the published models."""

import pytest
import torch

from structure_first.errors import UserError
from structure_first.model.shapes import SHAPES, body
from structure_first.model.transformer import Shape, Transformer


@pytest.mark.parametrize(
    ("name", "millions"), [("gpt2", 124.4), ("gpt2-medium", 354.8), ("gpt2-large", 774.0), ("gpt2-xl", 1557.6)]
)
def test_gpt2_has_the_parameters_that_were_published(name, millions, monkeypatch):
    monkeypatch.setattr(Transformer, "reset", lambda self: None)
    with torch.device("meta"):
        model = Transformer(Shape(vocab=50257, context=1024, tied=True, **body(name)))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_every_shape_is_possible():
    for name in SHAPES:
        Shape(vocab=8, context=8, **body(name))


def test_an_unknown_shape_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'gpt2-large'"):
        body("gpt2-larg")


def test_a_body_may_be_changed_without_changing_the_list():
    body("gpt2")["layers"] = 1
    assert body("gpt2")["layers"] == 12
