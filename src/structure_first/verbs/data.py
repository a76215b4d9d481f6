"""The verbs of data: what there is, and writing and packing it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from structure_first.errors import UserError, check_range, unknown
from structure_first.verbs.common import LAST_SEED, app

if TYPE_CHECKING:
    from structure_first.data.batch import Source

FREE = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def sources() -> None:
    """List every source with what it teaches and its settings."""
    from structure_first.data.registry import RULES

    for name, rule in RULES.items():
        settings = " ".join(f"--{setting} {value}" for setting, value in rule.defaults.items() if value is not None)
        typer.echo(f"{name:18} {rule.teaches}\n{'':18} {settings}")


@app.command(context_settings=FREE)
def generate(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="a source, shuffled:NAME or NAME+NAME; `structure-first sources` lists them")
    ],
    tokens: Annotated[int, typer.Option(help="how many, rounded up to whole sequences")],
    out: Annotated[Path, typer.Option(help="a .parquet or .jsonl file; its card is written beside it")],
    seed: Annotated[int, typer.Option(help="fixes every token")] = 0,
) -> None:
    """Write a source's sequences to a file.

    The source's settings are options too: `--length 64`, `--vocab 100`, `--k 64`, ...
    """
    from structure_first.data.generate import write

    check_range("--seed", seed, 0, LAST_SEED)
    typer.echo(f"wrote {write(chosen(name, context), tokens, out, seed)}")


def chosen(name: str, context: typer.Context) -> "Source":
    """The source of that name with the settings among the options of a verb."""
    from structure_first.data.registry import defaults, source

    given = settings(context.args)
    known = given if "/" in name else defaults(name)  # a corpus says itself what it takes
    for setting in given:
        if setting not in known:
            options = [*known, *(parameter.name for parameter in context.command.params)]
            verb = f"{context.info_name} {name}"
            raise unknown(f"option of {verb}", f"--{setting}", (f"--{option}".replace("_", "-") for option in options))
    return source(name, **given)


def settings(arguments: list[str]) -> dict[str, int | float]:
    """`--length 64 --p=0.5` as {"length": 64, "p": 0.5}; the registry says which names and values are legal."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    if len(words) % 2:
        raise UserError(f"option {words[-1]!r} has no value; write --name value")
    given = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        if not option.startswith("--"):
            raise UserError(f"unexpected argument {option!r}; settings are written --name value")
        try:
            given[option[2:].replace("-", "_")] = float(value) if set(".eE") & set(value) else int(value)
        except ValueError:
            raise UserError(f"option {option} takes a number, not {value!r}") from None
    return given


@app.command()
def pack(
    corpus: Annotated[str, typer.Argument(help="language, code, math, c4, codeparrot, hub:OWNER/NAME, or a path")],
    tokeniser: Annotated[str, typer.Option(help="bytes, characters, bpe:VOCAB, a folder, or a hub name")],
    out: Annotated[str, typer.Option(help="the folder of shards, new or empty or packed before")],
    limit_tokens: Annotated[int | None, typer.Option(help="about how many; all if left out")] = None,
    held_out: Annotated[float, typer.Option(help="the share of documents that are never trained on")] = 0.01,
    text_column: Annotated[
        str | None, typer.Option(help="of JSON lines, Parquet, the hub [default: its own or text]")
    ] = None,
    seed: Annotated[int, typer.Option(help="makes the questions of math, orders language and code")] = 0,
) -> None:
    """Pack a corpus into shards of tokens.

    A path is a text, JSON lines or Parquet file, a folder or a glob. Packing that was stopped goes on where it was when
    the same command is given again.
    """
    from structure_first.data.corpora.packing import pack

    check_range("--seed", seed, 0, LAST_SEED)
    manifest = pack(
        corpus, tokeniser, out, text_column=text_column, seed=seed, held_out=held_out, limit_tokens=limit_tokens
    )
    counts = ", ".join(
        f"{manifest['tokens'][split]:,} tokens of {manifest['documents'][split]:,} documents {purpose}"
        for split, purpose in (("train", "to train on"), ("held_out", "held out"))
    )
    typer.echo(f"packed {out}: {counts}; {manifest['documents']['duplicates']:,} copies dropped")
