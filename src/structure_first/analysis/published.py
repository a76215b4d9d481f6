"""Chapters 05 and 06: what the published recipe does on text, and what of it is left beside a tuned baseline."""

import pandas as pd

from structure_first.analysis.text import labels
from structure_first.evidence.statistics import final, interval, needed

ALIKE = ["task", "swept", "amount", "seed"]  # what models that are compared have in common


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out loss (nats a token) of every model at every evaluation: by corpus (`task`), rung of the ladder (`swept`)
    and rate (`amount`), with the share of the `text` that was read, and the `target`, what random init ends at.
    """
    found = rows[(rows["stage"] == 2) & (rows["metric"] == "loss")].sort_values(["cell", "seed", "step"])
    found = found.rename(columns={"value": "loss"}).reset_index(drop=True)
    found["label"] = labels(found, ", ")
    found["text"] = found["step"] / found.groupby(["cell", "seed"])["step"].transform("max")
    last = final(rows, "loss").rename("target").reset_index()
    base = found.loc[found["front"] == "random init", ["cell", *ALIKE]].drop_duplicates()
    targets = base.merge(last, on=["cell", "seed"]).drop(columns="cell")
    return found[["cell", *ALIKE, "label", "step", "tokens", "text", "loss"]].merge(targets, on=ALIKE, how="left")


def ends(found: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every model: its gain over random init of the same seed and settings, and the share of the
    text at which its curve came down to where random init ends (infinite: never).
    """
    last = found.drop_duplicates(["cell", "seed"], keep="last").set_index(["cell", "seed"])
    read = found[found["step"] > 0]
    crossed = {cell: needed(part, "text") for cell, part in read.groupby("cell")}
    last["needed"] = pd.concat(crossed, names=["cell", "seed"]) if crossed else None
    return last.assign(gain=last["target"] - last["loss"]).reset_index()


def published(last: pd.DataFrame) -> pd.DataFrame:
    """The models that have each corpus' published settings alone: no warm-up, and its own rate."""
    return last[last["swept"].eq("no warm-up") & last["amount"].eq(last.groupby("task")["amount"].transform("first"))]


def answers(last: pd.DataFrame) -> pd.DataFrame:
    """For each corpus and front the final loss, the gain and the text that it does without: median and interval."""
    lines = []
    for (corpus, label), part in last.groupby(["task", "label"], sort=False):
        gain, share = (interval(part[what].dropna().to_numpy()) for what in ("gain", "needed"))
        lines.append(
            {
                "corpus": corpus,
                "in front": label,
                "seeds": len(part),
                "final loss": f"{part['loss'].median():.3f}",
                "gain, nats a token": told("{:+.3f}", *gain),
                "of the text, for the loss of all of it": told("{:.0%}", *share),
            }
        )
    return pd.DataFrame(lines).set_index("corpus")


def told(form: str, middle: float, low: float, high: float) -> str:
    """A measurement and its interval; what is infinite was never reached."""
    each = [form.format(value).replace("inf%", "never") for value in (middle, low, high)]
    return each[0] if len(set(each)) == 1 else f"{each[0]} ({each[1]} to {each[2]})"
