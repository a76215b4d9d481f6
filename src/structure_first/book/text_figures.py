"""Chapters 05's and 06's figures and tables: what structure in front does to the loss on text."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from structure_first.book import figures
from structure_first.evidence.claims import Entry
from structure_first.evidence.statistics import final, fraction, interval, needed
from structure_first.experiments import additive, substitutive

NAME = r"^(?P<corpus>.+?) / (?P<front>.+?)(?: (?P<share>[\d.]+ %))?(?: / (?P<carried>[a-z ]+))?$"
SWEPT = {  # in a tuning
    "rate": "learning rate",
    "weights": "first weights' deviation",
    "warm-up": "warm-up, updates",
    "decay": "weight decay",
}
PAPER = {
    "language": 0.55,
    "code": 0.67,
    "math": 0.86,
}  # of the text, to reach the loss of all of it (Jiang et al. 2026)


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out loss (nats a token) of every model at every evaluation, its gain over random init with the same seed at
    the same step, and what its cell's name says.
    """
    found = rows[(rows["stage"] == 2) & (rows["metric"] == "loss")].sort_values(["cell", "seed", "step"])
    found = found[["cell", "seed", "step", "tokens", "flops", "value"]].rename(columns={"value": "loss"})
    found = found.reset_index(drop=True).join(found["cell"].reset_index(drop=True).str.extract(NAME))
    found["carried"] = found["carried"].fillna("full")
    base = found[found["front"] == "random init"].set_index(["corpus", "seed", "step"])["loss"]
    at = pd.MultiIndex.from_frame(found[["corpus", "seed", "step"]])
    found["gain"] = base.reindex(at).to_numpy() - found["loss"]
    learnt = final(rows, "mastery")
    found["learnt"] = learnt.reindex(pd.MultiIndex.from_frame(found[["cell", "seed"]])).to_numpy()
    return found


def ends(found: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every model; its gain is over the last of random init on its corpus, whenever that was."""
    last = found.drop_duplicates(["cell", "seed"], keep="last").copy()
    base = last[last["front"] == "random init"].set_index(["corpus", "seed"])["loss"]
    last["gain"] = base.reindex(pd.MultiIndex.from_frame(last[["corpus", "seed"]])).to_numpy() - last["loss"]
    return last


def panels(corpora: Sequence[str], height: int, **layout) -> go.Figure:
    """A panel a corpus, side by side."""
    fig = make_subplots(1, len(corpora), subplot_titles=list(corpora), shared_yaxes=True, horizontal_spacing=0.05)
    return fig.update_layout(template=figures.TEMPLATE, height=height, legend={"y": 1.1}, **layout)


def tuned(rows: pd.DataFrame) -> go.Figure:
    """The baseline's final loss against its learning rate, the deviation of its first weights, the updates in which the
    rate rises, and its weight decay, a line a corpus; a cross has GPT-2's small embeddings.
    """
    losses = final(rows, "loss").unstack("seed")
    names = losses.index.to_series().str.extract(
        rf"^(?P<corpus>[^/]+) / (?P<what>embeddings|{'|'.join(SWEPT)}) (?P<amount>.+)$"
    )
    names = names.dropna().astype({"amount": float})
    losses = losses.loc[names.index].dropna(axis="columns")  # the seeds that all have
    last = names.assign(value=losses.median(axis="columns")).reset_index()
    size = additive.SIZES[rows["scale"].iloc[0]]
    own = chosen(size)
    base = last[(last["what"] == "rate") & (last["amount"] == own["rate"])]
    narrow = last[last["what"] == "embeddings"].assign(what="rate", amount=own["rate"], symbol="x")
    swept = last[last["what"] != "embeddings"].assign(symbol="circle")
    others = [base.assign(what=what, amount=own[what], symbol="circle") for what in SWEPT if what != "rate"]
    swept = pd.concat([swept, *others])
    fig = make_subplots(1, len(SWEPT), shared_yaxes=True, horizontal_spacing=0.05)
    fig.update_layout(template=figures.TEMPLATE, height=400, legend={"y": 1.1})
    for column, (what, title) in enumerate(SWEPT.items(), 1):
        for colour, corpus in figures.coloured(dict.fromkeys(last["corpus"])):
            for part, mode in ((swept, "lines+markers"), (narrow, "markers")):
                part = part[(part["what"] == what) & (part["corpus"] == corpus)].sort_values("amount")
                if part.empty:
                    continue
                fig.add_scatter(
                    x=part["amount"],
                    y=part["value"].round(4),
                    name=corpus,
                    legendgroup=corpus,
                    mode=mode,
                    marker={"color": colour, "symbol": part["symbol"], "size": 8},
                    line={"color": colour},
                    text=part["cell"],
                    hovertemplate="%{text}: %{y:.3f} nats<extra></extra>",
                    showlegend=column == 1 and mode == "lines+markers",
                    row=1,
                    col=column,
                )
        stepped(fig, swept.loc[swept["what"] == what, "amount"], title, col=column)
    return fig.update_yaxes(title="final loss, nats a token", col=1)


def chosen(size: additive.Size) -> dict[str, float]:
    """What the runs have of all that was swept."""
    stage = size.stage_two
    return {"rate": stage.lr, "weights": size.body.init, "warm-up": stage.warmup, "decay": stage.weight_decay}


def stepped(fig: go.Figure, amounts: pd.Series, title: str, **at: int) -> None:
    """An axis on which what was swept stands in equal steps, zero too."""
    fig.update_xaxes(type="category", categoryarray=sorted(amounts.unique()), title=title, **at)


def choices(rows: pd.DataFrame) -> go.Figure:
    """The final loss against the learning rate, its warm-up and the weight decay, without a front and with one, where
    both ran, a column of panels a corpus.
    """
    last = final(rows, "loss").rename("loss").reset_index()
    titles = {what: title for what, title in SWEPT.items() if what != "weights"}  # of which those carried are no draw
    pattern = rf"^(?P<corpus>[^/]+?)(?: / (?P<front>.+))? / (?P<what>{'|'.join(titles)}) (?P<amount>[\d.]+)$"
    names = last["cell"].str.extract(pattern)
    last = last.join(names.assign(amount=names["amount"].astype(float), front=names["front"].fillna("random init")))
    own = chosen(additive.SIZES[rows["scale"].iloc[0]])
    base = last[(last["what"] == "rate") & (last["amount"] == own["rate"])]
    last = pd.concat([last, *(base.assign(what=what, amount=own[what]) for what in titles if what != "rate")])
    fronted = last.loc[last["front"] != "random init", ["corpus", "what", "amount", "seed"]].dropna().drop_duplicates()
    last = last.merge(fronted)
    fronts = sorted(set(last["front"]), key=lambda front: (front != "random init", front))
    corpora = list(dict.fromkeys(last["corpus"]))
    fig = make_subplots(
        len(titles),
        len(corpora),
        subplot_titles=corpora,
        shared_yaxes="columns",
        horizontal_spacing=0.08,
        vertical_spacing=0.13,
    )
    fig.update_layout(template=figures.TEMPLATE, height=900, margin={"t": 90}, legend={"y": 1.07})
    for row, (what, title) in enumerate(titles.items(), 1):
        for column, corpus in enumerate(corpora, 1):
            for colour, front in figures.coloured(fronts):
                part = last[(last["corpus"] == corpus) & (last["front"] == front) & (last["what"] == what)]
                line(fig, part, "amount", "loss", front, colour, column, f"{what} %{{x}}: %{{y:.3f}} nats", row=row)
        stepped(fig, last.loc[last["what"] == what, "amount"], title, row=row)
    return fig.update_yaxes(title="final loss, nats a token", col=1)


def line(
    fig: go.Figure, part: pd.DataFrame, x: str, y: str, name: str, colour: str, column: int, hover: str, **look
) -> None:
    """In one panel every seed a dot, and a line through their medians with 95 % intervals; the legend names it once."""
    if part.empty:
        return
    common = {"name": name, "legendgroup": name, "offsetgroup": name, "row": look.get("row", 1), "col": column}
    fig.add_scatter(
        x=part[x],
        y=part[y].round(4),
        mode="markers",
        marker={"size": 4, "color": colour, "opacity": 0.5},
        text=part["seed"],
        hovertemplate=f"{name}, {hover}, seed %{{text}}<extra></extra>",
        showlegend=False,
        **common,
    )
    ends = {at: interval(seeds.to_numpy()) for at, seeds in part.groupby(x)[y]}
    middle, low, high = np.array(list(ends.values())).T
    error = {"type": "data", "symmetric": False, "thickness": 1.2, "width": 0}
    fig.add_scatter(
        x=list(ends),
        y=middle.round(4),
        error_y=error | {"array": (high - middle).round(4), "arrayminus": (middle - low).round(4)},
        mode=look.get("mode", "lines+markers"),
        line={"color": colour, "dash": look.get("dash", "solid")},
        marker={"color": colour, "symbol": look.get("symbol", "circle"), "size": 7},
        hovertemplate=f"{name}, {hover}, median<extra></extra>",
        showlegend=all(trace.name != name or not trace.showlegend for trace in fig.data),
        **common,
    )


def dose(last: pd.DataFrame, main: str = additive.MAIN) -> go.Figure:
    """The gain over random init against the tokens in front, as a share of the text: `main` and its controls, a panel a
    corpus.
    """
    swept = last[last["share"].notna() & last["gain"].notna()]
    corpora = list(dict.fromkeys(swept["corpus"]))
    fig = panels(corpora, 440, margin={"t": 90})
    swept = swept.assign(share=swept["share"].map(fraction))
    swept["front"] += swept["carried"].map({"full": "", "mlp": ", mlp alone"})  # others: no name
    fronts = {main: "circle", f"{main}, mlp alone": "triangle-up", "text": "diamond"}
    fronts |= {f"shuffled {main}": "x", "random tokens": "cross", "set": "square"}
    for column, corpus in enumerate(corpora, 1):
        for colour, front in figures.coloured(fronts):
            part = swept[(swept["corpus"] == corpus) & (swept["front"] == front)]
            look = {"symbol": fronts[front], "dash": "solid" if front.startswith(main) else "dot"}
            line(fig, part, "share", "gain", front, colour, column, "%{x:.1%} in front: %{y:+.3f} nats", **look)
    fig.add_hline(0, line={"dash": "dot", "color": figures.GREY})
    ticks = [fraction(share) for share in additive.SHARES[::2]]  # all of them would not fit
    reach = [np.log10(fraction(share)) for share in (additive.SHARES[0], additive.SHARES[-1])]
    reach = [reach[0] - 0.15, reach[1] + 0.15]
    fig.update_xaxes(type="log", tickvals=ticks, tickformat=".1~%", range=reach, title="tokens in front")
    # The medians fill the panels: a single seed gone astray would leave no room for them.
    shown = [0.0, *(value for trace in fig.data if "lines" in trace.mode for value in trace.y)]
    low, high = min(shown), max(shown)
    margin = 0.25 * (high - low) or 1.0
    fig.update_yaxes(range=[low - margin, high + margin])
    return fig.update_yaxes(title="gain, nats a token", col=1)


def where(last: pd.DataFrame, share: str = additive.CONTROLLED[0], main: str = additive.MAIN) -> go.Figure:
    """The gain of one front by what of it is carried over, every seed a dot, a panel a corpus; and that of an
    initialisation which is only wider.
    """
    wider = last["front"] == "wider init"
    last = last.assign(carried=last["carried"].mask(wider, "wider init"))
    here = last[(wider | (last["front"] == main) & (last["share"] == share)) & last["gain"].notna()]
    here = here[here["corpus"].isin(here.loc[here["front"] == main, "corpus"])]
    corpora, kinds = (list(dict.fromkeys(here[name])) for name in ("corpus", "carried"))
    kinds.sort(key=[*additive.CARRIED, "wider init"].index)
    fig = panels(corpora, 400)
    for column, corpus in enumerate(corpora, 1):
        for colour, kind in figures.coloured(kinds):
            part = here[(here["corpus"] == corpus) & (here["carried"] == kind)]
            line(fig, part, "carried", "gain", kind, colour, column, "%{y:+.3f} nats")
    fig.add_hline(0, line={"dash": "dot", "color": figures.GREY})
    order = {"categoryorder": "array", "categoryarray": kinds, "range": [-0.5, len(kinds) - 0.5]}
    fig.update_xaxes(**order, showgrid=False, tickangle=-45, automargin=True)  # else the last name leaves the page
    return fig.update_layout(showlegend=False).update_yaxes(title="gain, nats a token", col=1)


def fronts(last: pd.DataFrame, share: str = additive.CONTROLLED[0]) -> go.Figure:
    """The gain of every source, by what of it is carried over, every seed a dot, a panel below another for a corpus."""
    here = last[last["front"].isin(additive.SOURCES) & (last["share"] == share) & last["gain"].notna()]
    kinds = [kind for kind in ("full", "attention", "mlp") if (here["carried"] == kind).any()]
    corpora = list(dict.fromkeys(here["corpus"]))
    fig = make_subplots(len(corpora), 1, subplot_titles=corpora, shared_xaxes=True, vertical_spacing=0.07)
    for row, corpus in enumerate(corpora, 1):
        for colour, kind in figures.coloured(kinds):
            part = here[(here["corpus"] == corpus) & (here["carried"] == kind)]
            line(fig, part, "front", "gain", kind, colour, 1, "%{x}: %{y:+.3f} nats", mode="markers", row=row)
    fig.add_hline(0, line={"dash": "dot", "color": figures.GREY})
    fig.update_xaxes(categoryorder="array", categoryarray=list(additive.SOURCES), showgrid=False)
    fig.update_yaxes(title="gain, nats", matches="y")
    height = 120 + 190 * len(corpora)
    return fig.update_layout(
        template=figures.TEMPLATE, height=height, legend={"y": 1.05}, scattermode="group", scattergap=0.5
    )


def race(found: pd.DataFrame) -> go.Figure:
    """What each front is worth when so much text has been read: a row a cell, a panel a corpus, a slider over tokens.

    A dot is a seed's gain over random init at the same step, a bar their median. What lies beyond 90 % of all gains is
    drawn at the edge, lest a few cells that went badly leave no room for the others.
    """
    found = found[found["front"] != "random init"]
    found = found.assign(label=found["front"] + " " + found["share"].fillna("") + ", " + found["carried"])
    found["label"] = found["label"].str.removesuffix(", full").str.strip()
    corpora = list(dict.fromkeys(found["corpus"]))
    common = found[found["gain"].notna()].groupby("step")["cell"].nunique()
    steps = [step for step in common.index if step and common[step] == common.max()]
    order = found[found["step"] == steps[-1]].groupby("label")["gain"].median().dropna()
    order = list(order.sort_values().index)
    places = {label: place for place, label in enumerate(order)}
    low, high = found.loc[found["step"].isin(steps), "gain"].quantile([0.05, 0.95])
    low, high = min(low, 0), max(high, 0)
    fig = panels(corpora, 210 + 21 * len(order), margin={"l": 170, "b": 130}, showlegend=False)

    def marks(label: pd.Series, gain: pd.Series, who: pd.Series | str) -> dict:
        text = label + ", " + who + ": " + gain.map("{:+.3f} nats".format)
        return {"x": gain.clip(low, high).round(4), "y": label.map(places), "text": text}

    def data(step: int, corpus: str) -> list[dict]:
        here = found[(found["step"] == step) & (found["corpus"] == corpus) & found["gain"].notna()]
        median = here.groupby("label")["gain"].median().reset_index()
        return [
            marks(here["label"], here["gain"], "seed " + here["seed"].astype(str)),
            marks(median["label"], median["gain"], "median"),
        ]

    for column, corpus in enumerate(corpora, 1):
        seeds, median = data(steps[-1], corpus)
        fig.add_scatter(
            **seeds,
            mode="markers",
            marker={"size": 5, "color": figures.PALETTE[0], "opacity": 0.6},
            hovertemplate="%{text}<extra></extra>",
            row=1,
            col=column,
        )
        fig.add_scatter(
            **median,
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 13, "color": figures.PALETTE[1], "line": {"width": 3}},
            hovertemplate="%{text}<extra></extra>",
            row=1,
            col=column,
        )
    choices = []
    for step in steps:
        parts = [each for corpus in corpora for each in data(step, corpus)]
        change = {key: [list(each[key]) for each in parts] for key in ("x", "y", "text")}
        tokens = found.loc[found["step"] == step, "tokens"].iloc[0]
        choices.append({"label": f"{tokens / 1e6:.3g} M", "method": "restyle", "args": [change]})
    slider = {"active": len(steps) - 1, "currentvalue": {"prefix": "tokens of text read: "}, "pad": {"t": 65}}
    fig.update_layout(sliders=[slider | {"steps": choices}])
    fig.add_vline(0, line={"dash": "dot", "color": figures.GREY})
    fig.update_xaxes(title="gain, nats", range=[low - 0.05 * (high - low), high + 0.05 * (high - low)])
    labels = {"tickvals": list(range(len(order))), "ticktext": [f"{label} " for label in order]}
    return fig.update_yaxes(range=[-0.6, len(order) - 0.4], showgrid=False, **labels)


def learnt(last: pd.DataFrame, size: additive.Size) -> pd.DataFrame:
    """How much of stage one each procedural front learnt, whatever of it goes across, and on about how many tokens."""
    known = last[last["learnt"].notna() & (last["front"] != "text")]
    by_cell = known.groupby(["cell", "front", "share"], sort=False)["learnt"].median()
    shown = by_cell.groupby(["front", "share"], sort=False).median().unstack("share")
    shown = shown[sorted(shown.columns, key=fraction)]
    shown.columns = [f"{share}: {fraction(share) * size.tokens:,.0f} tokens" for share in shown]
    return shown.map(lambda value: "" if np.isnan(value) else f"{value:.0%}")


# Less text


def by_share(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each model: what was in front, the share of the text, final loss, and tokens and FLOPs of both stages,
    as shares of what all of the text costs without anything in front.
    """
    last = final(rows, "loss").rename("loss").reset_index()
    names = last["cell"].str.extract(
        r"^(?P<corpus>[^/]+?)(?: / width (?P<width>\d+))? / (?P<front>.+) / (?P<share>.+)$"
    )
    last = last.join(names.assign(share=names["share"].map(fraction), width=names["width"].fillna("")))
    flops = rows[rows["stage"] == 2].groupby(["cell", "seed"])["flops"].max()
    last["flops"] = flops.reindex(pd.MultiIndex.from_frame(last[["cell", "seed"]])).to_numpy(dtype=float)
    recipes = substitutive.EXPERIMENT.recipes(rows["scale"].iloc[0])
    last["flops"] += [additive.spent(recipes[cell])[1] for cell in last["cell"]]
    whole = last[(last["front"] == "random init") & (last["share"] == 1.0)]
    whole = whole.set_index(["corpus", "width", "seed"])[["loss", "flops"]]
    at = pd.MultiIndex.from_frame(last[["corpus", "width", "seed"]])
    last["target"] = whole["loss"].reindex(at).to_numpy()
    last["flops share"] = last["flops"] / whole["flops"].reindex(at).to_numpy()
    return last


def iso_loss(models: pd.DataFrame) -> go.Figure:
    """Final loss against the share of the text, a line for what was in front, every seed a dot; the dotted line is the
    loss that all of the text buys without.
    """
    models = models[models["width"] == ""]
    corpora, fronts = (list(dict.fromkeys(models[name])) for name in ("corpus", "front"))
    fig = make_subplots(1, len(corpora), subplot_titles=corpora, horizontal_spacing=0.08)
    fig.update_layout(template=figures.TEMPLATE, height=430, margin={"t": 90}, legend={"y": 1.1})
    for column, corpus in enumerate(corpora, 1):
        here = models[models["corpus"] == corpus]
        for colour, front in figures.coloured(fronts):
            part = here[here["front"] == front]
            line(fig, part, "share", "loss", front, colour, column, "%{x:.0%} of the text: %{y:.3f}")
        fig.add_hline(here["target"].median(), line={"dash": "dot", "color": figures.GREY}, row=1, col=column)
    fig.update_xaxes(title="share of the text", tickformat=".0%")
    return fig.update_yaxes(title="final loss, nats a token", col=1)


def savings(models: pd.DataFrame) -> pd.DataFrame:
    """The share of the text, and of all FLOPs, that reaches the loss of all of it: median and interval over seeds."""
    columns = ["corpus", "width", "in front", "seeds", "of the text", "of the FLOPs", "paper, of the text"]
    lines = []
    models = models[models["front"] != "random init"]
    for (corpus, width, front), part in models.groupby(["corpus", "width", "front"], sort=False):
        budgets = {budget: needed(part, budget) for budget in ("share", "flops share")}
        seeds = len(budgets["share"])
        if seeds:
            shares = [written(*interval(found), most=part[budget].max()) for budget, found in budgets.items()]
            paper = f"{PAPER[corpus]:.0%}" if corpus in PAPER else ""
            lines.append([corpus, width or "whole", front, seeds, *shares, paper])
    return pd.DataFrame(lines, columns=columns).set_index("corpus")


def written(middle: float, low: float, high: float, most: float) -> str:
    """A share and its interval; what is infinite is above the `most` that was tried."""

    def one(value: float) -> str:
        return f"> {most:.0%}" if np.isinf(value) else f"{value:.0%}"

    return one(middle) if middle == low == high else f"{one(middle)} ({one(low)} to {one(high)})"


def budgets(models: pd.DataFrame) -> go.Figure:
    """What the front is worth at each budget: the gain over random init on the same share of the text."""
    base = models[models["front"] == "random init"].set_index(["corpus", "width", "share", "seed"])["loss"]
    at = pd.MultiIndex.from_frame(models[["corpus", "width", "share", "seed"]])
    models = models.assign(gain=base.reindex(at).to_numpy() - models["loss"])
    models = models[(models["front"] != "random init") & models["gain"].notna()]
    corpora = list(dict.fromkeys(models["corpus"]))
    fig = panels(corpora, 420, margin={"t": 90})
    kinds = list(dict.fromkeys(zip(models["front"], models["width"], strict=True)))
    for column, corpus in enumerate(corpora, 1):
        for colour, (front, width) in zip(figures.PALETTE, kinds, strict=False):
            named = front + (f", width {width}" if width else "")
            part = models[(models["corpus"] == corpus) & (models["front"] == front) & (models["width"] == width)]
            line(fig, part, "share", "gain", named, colour, column, "%{x:.0%} of the text: %{y:+.3f} nats")
    fig.add_hline(0, line={"dash": "dot", "color": figures.GREY})
    fig.update_xaxes(title="share of the text", tickformat=".0%")
    return fig.update_yaxes(title="gain, nats a token", col=1)


# What was read


def sizes(size: additive.Size, manifest: dict) -> pd.DataFrame:
    """What the stored runs trained on, a line a corpus: the model, the tokens that were packed, and those read."""
    packed = {run["source"]["name"].removeprefix("packed:"): run["source"] for run in manifest["runs"].values()}
    body = "{layers} layers, {heads} heads, width {width}".format(**asdict(size.body))
    lines = {
        corpus: {
            "text": text.corpus,
            "tokens are": text.tokeniser,
            "model": body,
            "context": size.context,
            "packed to train on": f"{packed[text.corpus]['tokens']:,}" if text.corpus in packed else "",
            "read in stage two": f"{size.tokens:,}",
            "rate": f"{size.stage_two.lr:g}",
        }
        for corpus, text in size.corpora.items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("corpus")


def answers(entries: Sequence[Entry], ids: Sequence[str], unit: str = "nats a token") -> pd.DataFrame:
    """The ledger's lines for these claims, and in what they are measured."""
    lines = {
        entry.statement: {
            "paper": entry.paper,
            f"measured, {unit}": entry.gain(),
            "seeds": entry.seeds or "",
            "verdict": entry.verdict,
        }
        for entry in entries
        if entry.id in ids
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("claim")
