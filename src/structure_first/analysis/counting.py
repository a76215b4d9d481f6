"""What counting alone can tell of a text: how likely each token is after the one before it, and who does better."""

import pandas as pd
import torch

from structure_first.data.batch import Source
from structure_first.evidence.statistics import needed, told
from structure_first.seeding import generator


def last_token(source: Source) -> float:
    """The held-out loss, in nats a token, of a bigram table: how often each token followed each in 8,000 sequences.

    Every row of the table has one count more, spread as the tokens are in all, so that no pair is impossible (MacKay
    and Bauman Peto 1995). A model that ends above this has not used more of its context than the last token.
    """
    seen = source.draw(8_000, generator("cpu", "counted", 0)).tokens
    asked = (source.held_out or source).draw(1_000, generator("cpu", "asked", 0)).tokens
    vocab = source.vocab
    single = torch.bincount(seen.flatten(), minlength=vocab) + 0.5  # of what never came, half a count
    pairs = torch.bincount(seen[:, :-1].flatten() * vocab + seen[:, 1:].flatten(), minlength=vocab**2)
    table = pairs.view(vocab, vocab) + single / single.sum()
    chance = table / table.sum(1, keepdim=True)
    return -chance[asked[:, :-1], asked[:, 1:]].log().mean().item()


def said(evaluations: pd.DataFrame, level: float) -> str:
    """After how much of the text the models of `published.curves` are below that loss, in words."""
    read = evaluations[evaluations["step"] > 0].assign(target=level)
    many = read["width"].nunique() > 1
    shares = {
        label + f" at width {width}" * many: needed(part, "text")
        for (width, label), part in read.groupby(["width", "label"], sort=False)
    }
    passed = ", ".join(f"{label} {told('{:.0%}', share)}" for label, share in shares.items())
    table = f"A table of which byte follows which has a loss of {level:.3f} nats."
    return f"{table} Share of the text after which a model is below that: {passed}."
