"""The store of evidence: rows in Parquet, and beside them the manifest of every run that wrote any.

A folder holds one experiment. `rows.parquet` has one line a measurement; its `run` column is a key of
`manifest.json`, where the run's configuration, versions, device and wall time stand. Both are replaced whole, the
manifest first, so that no row is ever without its manifest.
"""

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch

from structure_first import __version__
from structure_first.errors import UserError
from structure_first.files import locked, replacing, write_text
from structure_first.schema import validated

FORMAT = 2
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
# What is read of a run; the oldest lack some of it
RUN = {"configuration": str, "stage?": (1, 2), "recipe?": dict, "settings?": dict, "source?": dict, ...: object}
KEY = ["scale", "cell", "configuration", "stage", "seed"]  # of a model: a cell of that name may have been another
NAMED = 10  # models of a conflict
PACKAGES = ("torch", "numpy", "einops", "pandas", "pyarrow", "tokenizers", "datasets", "mathematics-dataset", "sympy")


def environment() -> dict:
    """What a manifest says of the code and the machine."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "code": __version__,
        **checkout(),
        "python": platform.python_version(),
        "packages": packages,
        "device": gpu or platform.machine(),
        "processor": processor(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def checkout() -> dict:
    """The git commit that the code was imported from, and whether its tree was clean; nothing where there is no git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # a package inside another checkout is not its
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain", "--", ":/src")}
    except (OSError, subprocess.CalledProcessError):
        return {}


@cache
def processor() -> str:
    """The processor's name, as the system knows it."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def configured(rows: pd.DataFrame, runs: Mapping[str, dict]) -> pd.DataFrame:
    """The rows, each with the key of what was trained."""
    return rows.assign(configuration=rows["run"].map({key: run["configuration"] for key, run in runs.items()}))


class Store:
    """The rows and manifests of one experiment, under `folder`."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._rows, self._manifest = self.folder / "rows.parquet", self.folder / "manifest.json"

    def rows(self) -> pd.DataFrame:
        """Every row, or an empty frame; raises `UserError` on files that are broken or of another version."""
        manifest = self.manifest()
        if not self._rows.exists():
            return pd.DataFrame(columns=[*COLUMNS, "configuration"]).astype(COLUMNS)
        try:
            rows = pd.read_parquet(self._rows)[list(COLUMNS)].astype(COLUMNS)
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"cannot read results {self._rows}: {reason}; restore or remove the folder") from None
        if not set(rows["run"].unique()) <= set(manifest["runs"]):
            raise UserError(f"{self._rows} has rows of runs that {self._manifest} does not know; restore both together")
        return configured(rows, manifest["runs"])

    def manifest(self) -> dict:
        """The manifest: `format`, and `runs` by their key."""
        if not self._manifest.exists():
            return {"format": FORMAT, "runs": {}}
        try:
            manifest = json.loads(self._manifest.read_text())
            if validated(manifest, {"format": object, ...: object})["format"] != FORMAT:
                problem = f"{self.folder} was written in format {manifest['format']!r:.60}, this version reads {FORMAT}"
                raise UserError(f"{problem}; name another results folder")
            validated(manifest, {"format": FORMAT, "runs": {...: RUN}, ...: object})
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"cannot read manifest {self._manifest}: {error}; restore or remove the folder") from None
        return manifest

    def seconds(self, rows: pd.DataFrame) -> float:
        """How long it took to train the models of these rows: of a program, as much as its models are of it."""
        runs = self.manifest()["runs"]
        parts = {key: len(runs[key]["seeds"]) / runs[key]["replicas"] for key in rows["run"].unique()}
        return sum(part * runs[key]["seconds"] for key, part in parts.items())

    def append(self, rows: pd.DataFrame, runs: Mapping[str, dict]) -> None:
        """Add the rows of `runs`, each run with its manifest, in place of older rows of the same models."""
        merged = self.manifest()
        merged["runs"] |= runs
        rows = configured(rows[list(COLUMNS)].astype(COLUMNS), runs)
        old = self.rows()
        replaced = pd.MultiIndex.from_frame(old[KEY]).isin(pd.MultiIndex.from_frame(rows[KEY]))
        rows = pd.concat([old[~replaced], rows], ignore_index=True)
        rows = rows.sort_values([*KEY, "step", "metric"], kind="stable", ignore_index=True)
        write_text(self._manifest, json.dumps(merged, indent=1) + "\n")
        with replacing(self._rows) as temporary:
            rows[list(COLUMNS)].to_parquet(temporary, index=False, compression="zstd")
        used = set(rows["run"].unique())
        merged["runs"] = {key: value for key, value in merged["runs"].items() if key in used}
        write_text(self._manifest, json.dumps(merged, indent=1) + "\n")

    def merge(self, other: "Store") -> int:
        """Add what another store has and this one has not; returns how many models that is.

        Raises `UserError`, and adds nothing, where the two differ in the measurements of a model.
        """
        theirs, mine = (store.rows().set_index(KEY) for store in (other, self))
        known, shared = theirs.index.isin(mine.index), mine.index.isin(theirs.index)
        measured = [*KEY, "step", "tokens", "flops", "metric", "value"]
        lines = pd.concat([theirs[known], mine[shared]]).reset_index()[measured]
        single = lines[~lines.duplicated(keep=False)]  # a measurement that only one of the two has
        if not single.empty:
            models = single[KEY].drop_duplicates().sort_values(KEY)
            named = "; ".join(
                f"{scale}, {cell}, stage {stage}, seed {seed}"
                for scale, cell, _, stage, seed in models.head(NAMED).itertuples(index=False)
            )
            rest = f"; and {len(models) - NAMED} more" * (len(models) > NAMED)
            problem = f"{other.folder} and {self.folder} differ in {len(models)} models ({named}{rest})"
            raise UserError(f"{problem}; nothing was merged: remove the rows of one of the two")
        fresh = theirs[~known].reset_index()
        if not fresh.empty:
            runs = other.manifest()["runs"]
            self.append(fresh, {run: runs[run] for run in fresh["run"].unique()})
        for weights in sorted(other.folder.glob("weights/*/*.safetensors")):
            target = self.folder / weights.relative_to(other.folder)
            if not target.exists():
                with replacing(target) as temporary:
                    shutil.copyfile(weights, temporary)
        return len(fresh[KEY].drop_duplicates())

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for this process; raises `UserError` where another process holds it."""
        return locked(self.folder)
