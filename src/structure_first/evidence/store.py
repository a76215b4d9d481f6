"""The store of evidence: rows in Parquet, and beside them the manifest of every run that wrote any.

A folder holds one experiment. `rows.parquet` has one line a measurement; its `run` column is a key of
`manifest.json`, where the run's configuration, versions, device and wall time stand. Both are replaced whole, the
manifest first, so that no row is ever without its manifest.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch

from structure_first import __version__
from structure_first.errors import UserError
from structure_first.files import replacing

FORMAT = 1
COLUMNS = {
    "experiment": "str",
    "scale": "str",
    "cell": "str",
    "stage": "int64",  # 1 or 2
    "seed": "int64",
    "step": "int64",
    "tokens": "int64",  # trained on by this replica in this stage
    "flops": "int64",  # spent by this replica in this stage
    "metric": "str",
    "value": "float64",
    "run": "str",
}
KEY = ["scale", "cell", "stage", "seed"]


def environment() -> dict:
    """What a manifest says of the code and the machine."""
    packages = {}
    for name in ("torch", "numpy", "einops"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads" if gpu is None else gpu
    return {
        "code": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "device": machine,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class Store:
    """The rows and manifests of one experiment, under `folder`."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._rows, self._manifest = self.folder / "rows.parquet", self.folder / "manifest.json"

    def rows(self) -> pd.DataFrame:
        """Every row, or an empty frame; raises `UserError` on files that are broken or of another version."""
        manifest = self.manifest()
        if not self._rows.exists():
            return pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)
        try:
            rows = pd.read_parquet(self._rows)[list(COLUMNS)].astype(COLUMNS)
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"cannot read results {self._rows}: {reason}; restore or remove the folder") from None
        if not set(rows["run"]) <= set(manifest["runs"]):
            raise UserError(f"{self._rows} has rows of runs that {self._manifest} does not know; restore both together")
        return rows

    def manifest(self) -> dict:
        """The manifest: `format`, and `runs` by their key."""
        if not self._manifest.exists():
            return {"format": FORMAT, "runs": {}}
        try:
            manifest = json.loads(self._manifest.read_text())
            if manifest["format"] != FORMAT:
                raise UserError(
                    f"{self.folder} was written in format {manifest['format']}, this version reads {FORMAT}; "
                    "name another results folder"
                )
            dict(manifest["runs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read manifest {self._manifest}: {error}; restore or remove the folder") from None
        return manifest

    def append(self, rows: pd.DataFrame, runs: Mapping[str, dict]) -> None:
        """Add the rows of `runs`, each run with its manifest, in place of older rows of the same scale, cell, stage and
        seed.
        """
        merged = self.manifest()
        merged["runs"] |= runs
        rows = rows[list(COLUMNS)].astype(COLUMNS)
        old = self.rows()
        replaced = pd.MultiIndex.from_frame(old[KEY]).isin(pd.MultiIndex.from_frame(rows[KEY]))
        rows = pd.concat([old[~replaced], rows], ignore_index=True)
        rows = rows.sort_values([*KEY, "step", "metric"], kind="stable", ignore_index=True)
        with replacing(self._manifest) as temporary:
            temporary.write_text(json.dumps(merged, indent=1) + "\n")
        with replacing(self._rows) as temporary:
            rows.to_parquet(temporary, index=False, compression="zstd")
        merged["runs"] = {key: value for key, value in merged["runs"].items() if key in set(rows["run"])}
        with replacing(self._manifest) as temporary:
            temporary.write_text(json.dumps(merged, indent=1) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process, and leave neither the lock nor an empty folder; raises `UserError` where
        another process holds it.
        """
        path = self.folder / ".lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "w")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}; name another --out folder") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    raise BlockingIOError  # its holder has ended since, and another has come
            except OSError:
                raise UserError(f"another run is writing to {self.folder}; wait for it or name another --out") from None
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    self.folder.rmdir()
