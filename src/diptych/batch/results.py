"""What a job has written: as one file, as a table, and what to know about it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import OutputError
from diptych.extras import imported
from diptych.files import as_text, json_text, replacing
from diptych.predictions import cell

__all__ = ["WRITERS", "Job", "assemble", "read"]

_SMALLEST_BLOCK, _LARGEST_BLOCK = 2**20, 2**30  # bytes


@dataclass(frozen=True)
class Job:
    """A finished job.

    Attributes:
        out: The folder of the parts, or the file that was made from them.
        folder: The folder with the manifest.
        rows: How many pictures it has.
        failed: How many of them could not be used; their rows have a sentence in the column `error`.
        settings: What decided the results.
        remarks: What to know about the job.
        failures: The first sentences about pictures that could not be used, of this call.
    """

    out: Path
    folder: Path
    rows: int
    failed: int
    settings: Mapping[str, Any]
    remarks: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The Parquet files in order, or the one file that was asked for."""
        if self.out.is_file():
            return (self.out,)
        return tuple(sorted(self.out.glob("part-*.parquet"), key=lambda path: int(path.stem[5:])))

    def table(self) -> Any:
        """The rows, in the order of the pictures, as a `pyarrow.Table`.

        Raises:
            OutputError: A file is gone or cannot be read.
        """
        pa: Any = imported("pyarrow")
        try:
            if self.out.is_file() and self.out.suffix.lower() == ".csv":
                return _table_of_csv(self.out)
            if self.out.is_file() and self.out.suffix.lower() == ".jsonl":
                whole = imported("pyarrow.json").ReadOptions(block_size=_block_of(self.out))
                return imported("pyarrow.json").read_json(self.out, read_options=whole)
            return pa.concat_tables(map(read, self.paths))
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"cannot read {self.out}: {error}; run the job again") from error

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`.

        Raises:
            MissingExtra: pandas is not installed.
        """
        imported("pandas")
        return self.table().to_pandas()

    def to_document(self) -> dict[str, Any]:
        """The job as a JSON object."""
        return {
            "out": as_text(self.out),
            "files": [as_text(path) for path in self.paths],
            "rows": self.rows,
            "failed": self.failed,
            "settings": dict(self.settings),
            "failures": list(self.failures),
            "remarks": list(self.remarks),
        }


def assemble(parts: Sequence[Path], path: Path) -> None:
    """Makes one file of parts, in the format of its suffix. The same parts give the same bytes.

    Raises:
        OutputError: It cannot be written.
    """
    with replacing(path) as temporary:
        WRITERS[path.suffix.lower()](map(read, parts), temporary)


def read(path: Path) -> Any:
    """A Parquet file as a `pyarrow.Table`, without what is noted in it."""
    return imported("pyarrow.parquet").read_table(path, partitioning=None).replace_schema_metadata(None)


def _table_of_csv(path: Path) -> Any:
    """The table in a CSV file, where an empty cell is null, as it is in the other formats."""
    arrow: Any = imported("pyarrow.csv")
    nulls = arrow.ConvertOptions(null_values=[""], strings_can_be_null=True)
    return arrow.read_csv(
        path, read_options=arrow.ReadOptions(block_size=_block_of(path)), convert_options=nulls
    )


def _block_of(path: Path) -> int:
    """How many bytes to read at once: a row must not be longer, and the columns of arrays are long."""
    return max(_SMALLEST_BLOCK, min(path.stat().st_size + 1, _LARGEST_BLOCK))


def _parquet(tables: Iterator[Any], path: Path) -> None:
    parquet: Any = imported("pyarrow.parquet")
    first = next(tables)
    with path.open("wb") as stream, parquet.ParquetWriter(
        stream, first.schema, compression="zstd", version="2.6", write_page_checksum=True
    ) as writer:  # fmt: skip
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _csv(tables: Iterator[Any], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        for number, table in enumerate(tables):
            if number == 0:
                writer.writerow(table.schema.names)
            for row in table.to_pylist():
                writer.writerow([_cell(value) for value in row.values()])


def _cell(value: object) -> object:
    if isinstance(value, str):
        return cell(value)
    if isinstance(value, float):
        return f"{value:.9g}"
    return json_text(value) if isinstance(value, list) else value


def _jsonl(tables: Iterator[Any], path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for table in tables:
            for row in table.to_pylist():
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


WRITERS: dict[str, Callable[[Iterator[Any], Path], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
"""The kinds of one file, by suffix."""
