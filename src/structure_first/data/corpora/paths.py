"""The texts in a user's files: plain text, JSON lines or Parquet; one file, a folder or a glob."""

import glob
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from structure_first.errors import UserError, reason

LONGEST = 1 << 20  # bytes of a text file that is one document; a longer one is cut at line ends
PIECE = 1 << 16  # into documents of about this many characters
SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can write what UTF-8 cannot
ROWS = 256  # of a Parquet file held in memory at once
HEAD = 1 << 12  # bytes in which a binary file gives itself away


def files(path: str | Path) -> list[Path]:
    """The files that a path names, in alphabetical order.

    Of a folder these are its Parquet files, else its JSON lines, else all its files; hidden ones are left out.
    """
    given = Path(os.path.expanduser(path))  # like all of os.path it takes what cannot be for what is not there
    if os.path.isdir(given):
        inside = (each.relative_to(given) for each in sorted(given.rglob("*")) if os.path.isfile(each))
        matches = [given / each for each in inside if not any(part.startswith(".") for part in each.parts)]
        kinds = {kind: [each for each in matches if reader(each) is kind] for kind in (parquet, json_lines, plain)}
        matches = next((each for each in kinds.values() if each), [])
    elif os.path.isfile(given):
        matches = [given]
    elif os.path.exists(given):
        raise UserError(f"{path} is no ordinary file; write what it gives into one")
    else:
        matches = sorted(Path(each) for each in glob.glob(str(given), recursive=True) if os.path.isfile(each))
    if not matches:
        what = "there are no files in" if os.path.isdir(given) else "there is no file"
        raise UserError(f"{what} {path}; name a text, JSON lines or Parquet file, a folder or a glob")
    return matches


def texts(paths: list[Path], column: str) -> Iterator[str]:
    """Every text in the files that is not empty; `column` is where JSON lines and Parquet files hold theirs."""
    empty = True
    for path in paths:
        with reading(path):
            for text in reader(path)(path, column):
                if text:
                    empty = False
                    yield text
    if empty:
        raise UserError(f"{paths[0] if len(paths) == 1 else paths[0].parent} is empty; name files that hold some text")


def reader(path: Path) -> Callable[[Path, str], Iterator[str]]:
    readers = {".parquet": parquet, ".jsonl": json_lines, ".json": json_lines, ".ndjson": json_lines}
    return readers.get(Path(path.name.lower().removesuffix(".gz")).suffix, plain)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, as one line that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"{path} is not UTF-8 (byte 0x{byte:02x}); convert it, for instance with iconv") from None
    except (pa.ArrowException, EOFError, zlib.error, gzip.BadGzipFile) as error:
        kind = "Parquet" if isinstance(error, pa.ArrowException) else "gzip"
        raise UserError(f"{path} is no whole {kind} file ({reason(error)}); fetch or write it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}; name another file") from None


def opened(path: Path) -> BufferedReader | gzip.GzipFile:
    """The file as bytes, unpacked; raises `UserError` if it begins as no text does."""
    file = gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")  # noqa: SIM115
    if b"\0" in file.read(HEAD):
        file.close()
        raise UserError(f"{path} is binary; name a text, JSON lines or Parquet file, by its suffix")
    file.seek(0)
    return file


def plain(path: Path, column: str) -> Iterator[str]:
    """A text file as one document, or a long one as several."""
    with opened(path) as file:
        size = PIECE if len(file.read(LONGEST + 1)) > LONGEST else -1  # packed by gzip or not, it is cut alike
        file.seek(0)
        lines = TextIOWrapper(file, encoding="utf-8-sig", newline="")
        while text := lines.read(size) + lines.readline(PIECE):
            yield text


def json_lines(path: Path, column: str) -> Iterator[str]:
    """The text in each line, every line an object; blank lines are skipped."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except UnicodeDecodeError:
                raise
            except (ValueError, RecursionError):  # a number of thousands of digits, and what is nested as deep
                problem = f"line {number:,} of {path} is not whole JSON; every line must hold one object"
                raise UserError(f"{problem}; mend or remove it") from None
            if not isinstance(row, dict):
                raise UserError(f'line {number:,} of {path} is no object; write lines such as {{"{column}": "..."}}')
            if column not in row:
                raise missing(f"line {number:,} of {path}", column, list(row))
            if not isinstance(row[column], str):
                raise UserError(f"line {number:,} of {path} holds no text under {column!r}; name another --text-column")
            if not row[column].isprintable() and SURROGATE.search(row[column]):
                raise UserError(f"line {number:,} of {path} holds half a surrogate pair; mend or remove it")
            yield row[column]


def parquet(path: Path, column: str) -> Iterator[str]:
    """The text in each row; a null is an empty one."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        index = schema.get_field_index(column)
        if index < 0:  # there are none, or several
            raise missing(str(path), column, schema.names)
        kind = schema.field(index).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise UserError(f"column {column!r} of {path} holds {kind}, not text; name another with --text-column")
        for rows in file.iter_batches(ROWS, columns=[column]):
            yield from (text or "" for text in rows.column(0).to_pylist())


def missing(location: str, column: str, known: list[str]) -> UserError:
    columns = " ".join(", ".join(known[:20]).split())[:200] or "none"
    return UserError(f"{location} has no column {column!r}; it has {columns}; name one with --text-column")
