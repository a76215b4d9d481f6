"""The card of an exported model: its recipe and its numbers, as Markdown with a header that the hub reads."""

import yaml
from pandas import DataFrame

from structure_first import __version__
from structure_first.pretraining.config import Config

FILE = "README.md"
NAMES = {"loss": "held-out loss, nats a token", "accuracy": "held-out accuracy", "problems": "held-out problems solved"}


def card(config: Config, rows: DataFrame) -> str:
    """What is said of the model of a run whose rows these are."""
    last = rows.sort_values("step").drop_duplicates(["stage", "metric"], keep="last")
    by_stage = last.pivot(index=["stage", "step", "tokens", "flops"], columns="metric", values="value")
    numbers = by_stage[[metric for metric in NAMES if metric in by_stage]].reset_index()
    numbers["flops"] /= 1e15
    if "problems" in numbers:  # of which stage one has none
        numbers["problems"] = numbers["problems"].map("{:.3f}".format).replace("nan", "")
    numbers = numbers.rename(columns={"step": "updates", "flops": "PFLOPs"} | NAMES)
    table = numbers.to_markdown(index=False, floatfmt=(*3 * (",.0f",), ".3g", ".4f", ".3f", ""))
    title, shape = f"{config.corpus.title} alone", config.shape
    if config.stage_one:
        title = f"{config.stage_one.phase.label}, then {config.corpus.title}"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [procedural-pretraining]
---
# {title}

GPT-2 with {shape.layers} layers, {shape.heads} heads and a width of {shape.width}, trained by structure-first \
{__version__} from one seed.
Did what came first help? Only runs without it can say, seed by seed.

{table}

`structure-first train` makes it of this file:

```yaml
{yaml.safe_dump(config.plain(), sort_keys=False)}```

`AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` load it. A document begins with the
tokeniser's `bos_token`.

Procedural pretraining: Jiang et al. 2026, *Procedural Pretraining: Warming Up Language Models with Abstract Data*
(arXiv 2601.21725).
"""
