"""The attention scores and the causal tests, against models built by hand and against plain Python."""

import torch

from structure_first.analysis import attention
from structure_first.data.batch import Batch
from structure_first.data.registry import source
from structure_first.model.transformer import Shape, Transformer
from structure_first.seeding import generator

HAYSTACK, PAIRS = source("haystack", pairs=4), 4


def quiet(shape: Shape, seeds=(0, 1)) -> Transformer:
    """A model whose attention does nothing and looks evenly."""
    model = Transformer(shape, seeds)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".attention." in name:
                parameter.zero_()
    return model


def previous_token_model(context: int = 9) -> Transformer:
    """Head 0 of the first layer looks at the token before it, whatever that is; all other heads look evenly."""
    model = quiet(Shape(vocab=256, context=context, heads=2, width=16))
    with torch.no_grad():
        # Positions on a circle; the queries are turned back by one place.
        angle = torch.arange(context) * 2 * torch.pi / context
        model.embedding.zero_()
        model.position.zero_()
        model.position[..., 0], model.position[..., 1] = angle.cos(), angle.sin()
        block = model.blocks[0].attention
        turn = torch.tensor([[angle[1].cos(), -angle[1].sin()], [angle[1].sin(), angle[1].cos()]])
        block.query.weight[:, :2, :2] = 100 * turn
        block.key_value.weight[:, :2, :2] = torch.eye(2)
    return model


def trained_like(seeds=(0, 1), **shape) -> Transformer:
    """A model whose heads all matter."""
    model = Transformer(Shape(**({"vocab": 256, "context": 9, "init": 0.4, "init_embedding": 0.4} | shape)), seeds)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return model


def score(model: Transformer, of=HAYSTACK, replica: int = 0):
    found = attention.scores(model, of, count=20)
    return found[found["replica"] == replica].set_index(["kind", "layer", "head"])["score"]


def test_examples_are_full_and_end_with_the_value_of_their_query():
    tokens, mask = attention.example(pairs=PAIRS, count=5)
    assert tokens.shape == (5, 10) and mask[:, -1].all() and mask.sum() == 5
    for word, key in zip(tokens.tolist(), attention.asked(tokens[:, :-1]).tolist(), strict=True):
        assert word[key] == word[-2] - 30 and word[key + 1] == word[-1]


def test_a_head_made_to_look_at_the_token_before_is_found_in_every_replica():
    found = attention.scores(previous_token_model(), HAYSTACK, count=20)
    assert len(found) == 2 * 2 * 2 * 6
    of_kind = found.set_index(["kind", "replica", "layer", "head"])["score"]
    for replica in (0, 1):
        for kind in ("previous token", "value → key"):
            assert of_kind[kind, replica, 0, 0] > 0.99
        assert of_kind["query → key", replica, 0, 0] < 0.01
        assert of_kind["induction", replica, 0, 0] < 0.01


def test_an_even_head_takes_the_same_from_everywhere():
    even = score(quiet(Shape(vocab=256, context=9, heads=1, width=16)))
    assert abs(even["query → value", 1, 0] - 1 / 9) < 1e-6 and abs(even["query → key", 1, 0] - 1 / 9) < 1e-6
    assert abs(even["value → key", 1, 0] - sum(1 / n for n in (2, 4, 6, 8)) / 4) < 1e-6
    assert abs(even["previous token", 1, 0] - sum(1 / n for n in range(2, 9)) / 7) < 1e-6
    assert abs(even["induction", 1, 0] - sum(1 / n for n in (5, 6, 7, 8)) / 4) < 1e-6


def test_an_induction_head_made_by_hand_is_found():
    """Layer 0 writes what the token before was; layer 1 looks for a place that was written its own token."""
    half, width = 6, 64
    model = quiet(Shape(vocab=20, context=2 * half, heads=1, width=width), (0,))
    with torch.no_grad():
        model.embedding.zero_()
        model.embedding[0, :, :20] = 6 * torch.eye(20)
        model.position.zero_()
        model.position[0, :, 20:32] = 6 * torch.eye(2 * half)
        first, second = (block.attention for block in model.blocks)
        first.query.weight[0, 20:32, :12] = torch.eye(12).roll(-1, 1) * 10  # the place before, as a sign
        first.key_value.weight[0, 20:32, :12] = torch.eye(12) * 10
        first.key_value.weight[0, :20, width : width + 20] = torch.eye(20)
        first.out.weight[0, :20, 40:60] = torch.eye(20)
        second.query.weight[0, :20, :20] = torch.eye(20) * 10
        second.key_value.weight[0, 40:60, :20] = torch.eye(20) * 10
    found = score(model, source("identity", length=6, vocab=18))
    # Its first token has only itself to look back at, so that one second coming finds two places.
    assert found["previous token", 0, 0] > 0.99 and abs(found["induction", 1, 0] - 5.5 / 6) < 0.01
    assert found["previous token", 1, 0] < 0.5 and found["induction", 0, 0] < 0.01


def test_copying_is_the_eigenvalue_sum_of_the_whole_map_from_tokens_to_logits():
    model, tokens = trained_like(vocab=23), torch.arange(3, 17)
    found = attention.copying(model, tokens)
    for layer, block in enumerate(model.blocks):
        for replica in (0, 1):
            for head in range(4):
                mine = slice(4 * head, 4 * head + 4)
                value = block.attention.key_value.weight[replica, :, 16:][:, mine]
                seen = torch.nn.functional.layer_norm(model.embedding[replica, tokens], (16,))
                logits = seen @ value @ block.attention.out.weight[replica, mine] @ model.unembedding[replica, tokens].T
                values = torch.linalg.eigvals((logits - logits.mean(1, keepdim=True)).double())
                expected = values.sum().real / values.abs().sum()
                torch.testing.assert_close(found[layer, replica, head].double(), expected, atol=1e-4, rtol=1e-3)


def test_a_head_that_writes_what_it_sees_copies_and_one_that_writes_its_opposite_does_not():
    model = quiet(Shape(vocab=256, context=9, heads=4, width=16, tied=True))
    with torch.no_grad():
        for layer, sign in ((0, 1), (1, -1)):
            model.blocks[layer].attention.key_value.weight[:, :, 16:] = torch.eye(16)
            model.blocks[layer].attention.out.weight[:] = sign * torch.eye(16)
    found = attention.copying(model, torch.arange(1, 128))
    assert (found[0] > 0.9).all() and (found[1] < -0.9).all()


def test_of_a_closer_right_behind_its_opener_there_is_nothing_to_score():
    words = torch.tensor([[0, 1, 4, 3], [0, 3, 1, 4]])  # ( [ ] ) and ( ) [ ]
    assert [part.tolist() for part in attention.closings(words, 3)] == [[0], [2], [0]]
    assert [part.tolist() for part in attention.closings(words[1:], 3)] == [[], [], []]


def test_brackets_are_scored_on_dyck_words_alone():
    dyck = source("dyck", k=3, length=24)
    model = quiet(Shape(vocab=6, context=23, heads=1, width=16))
    words = dyck.draw(2_000, generator("cpu", 1)).tokens
    _, place, _ = attention.closings(words, 3)
    found = attention.scores(model, dyck, count=2_000).set_index(["kind", "replica", "layer", "head"])["score"]
    assert abs(found["bracket match", 0, 1, 0] - (1 / (place + 1)).mean()) < 0.01
    assert "bracket match" not in score(quiet(Shape(vocab=256, context=9, heads=1, width=16))).index.get_level_values(0)


def test_accuracy_counts_answers():
    model = trained_like()
    tokens, mask = attention.example(PAIRS, 40)
    says = model(tokens[:, :-1].expand(2, -1, -1))[:, :, -1].argmax(-1)
    batch = Batch(torch.cat([tokens[:, :-1], says[:1].T], 1), mask)
    expected = torch.stack([torch.tensor(1.0), (says[0] == says[1]).float().mean()])
    torch.testing.assert_close(attention.accuracy(model, batch), expected)


def right_by_hand(model: Transformer, replica: int, batch: Batch, layer: int, head: int) -> float:
    """One replica's accuracy with a head's output replaced by its mean: computed again without the program."""
    alone, width = model.pick([replica]), model.shape.width // model.shape.heads
    mine, last = slice(head * width, (head + 1) * width), layer == model.shape.layers - 1

    def mean(_, mixed):
        (mixed,) = mixed
        mixed = mixed.clone()
        mixed[..., mine] = mixed[:, :, -1:, mine].mean((1, 2)) if last else mixed[..., mine].mean((1, 2))
        return (mixed,)

    hook = alone.blocks[layer].attention.out.register_forward_pre_hook(mean)
    says = alone(batch.tokens[None, :, :-1])[0, :, -1].argmax(-1)
    hook.remove()
    return (says == batch.tokens[:, -1]).float().mean().item()


def made_right(model: Transformer, count: int = 60) -> Batch:
    """Examples whose answer is what replica 1 says."""
    tokens, mask = attention.example(PAIRS, count)
    says = model(tokens[:, :-1].expand(model.replicas, -1, -1))[1, :, -1].argmax(-1)
    return Batch(torch.cat([tokens[:, :-1], says[:, None]], 1), mask)


@torch.no_grad()
def test_ablating_a_head_equals_computing_again_with_its_mean():
    model = trained_like()
    batch = made_right(model)
    found = attention.ablations(model, batch).set_index(["layer", "head", "replica"])["accuracy"]
    assert len(found) == 2 * 4 * 2
    for (layer, head, replica), value in found.items():
        assert abs(value - right_by_hand(model, replica, batch, layer, head)) < 1e-6
    assert found[:, :, 1].min() < 0.95
    torch.testing.assert_close(attention.accuracy(model, batch)[1], torch.tensor(1.0))  # the model is as it was


@torch.no_grad()
def test_a_patched_head_is_the_donors_and_all_heads_of_all_parts_are_its_attention():
    model, donor = trained_like(), trained_like((5, 6))
    batch = made_right(model)
    found = attention.patches(model, donor, batch).set_index(["layer", "head", "part", "replica"])["accuracy"]
    assert len(found) == 2 * 5 * 3 * 2
    for layer in (0, 1):
        whole = model.pick([0, 1])
        for mine, theirs in zip(
            whole.blocks[layer].attention.parameters(), donor.blocks[layer].attention.parameters(), strict=True
        ):
            mine.copy_(theirs)
        whole.blocks[layer].attention.out.bias.copy_(model.blocks[layer].attention.out.bias)
        expected = attention.accuracy(whole, batch)
        for replica in (0, 1):
            assert found[layer, attention.ALL, "both", replica] == expected[replica]
    assert found[:, :, :, 1].min() < 0.95
    same = attention.patches(model, model, batch)
    assert (same[same["replica"] == 1]["accuracy"] == 1).all()


@torch.no_grad()
def test_patching_one_part_of_one_head_leaves_the_others():
    model, donor = trained_like(), trained_like((5, 6))
    batch = made_right(model)
    found = attention.patches(model, donor, batch).set_index(["layer", "head", "part", "replica"])["accuracy"]
    by_hand = model.pick([0, 1])
    mine, theirs = by_hand.blocks[0].attention, donor.blocks[0].attention
    key, column = slice(8, 12), slice(24, 28)  # head 2: of the queries, and of the values beside the keys
    for name, places in (("query", key), ("key_value", key)):
        for ours, others in zip(getattr(mine, name).parameters(), getattr(theirs, name).parameters(), strict=True):
            ours[..., places] = others[..., places]
    assert found[0, 2, "where it looks", 1] == attention.accuracy(by_hand, batch)[1]
    for ours, others in zip(mine.key_value.parameters(), theirs.key_value.parameters(), strict=True):
        ours[..., column] = others[..., column]
    mine.out.weight[:, key] = theirs.out.weight[:, key]
    assert found[0, 2, "both", 1] == attention.accuracy(by_hand, batch)[1]
