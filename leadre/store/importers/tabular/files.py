"""Files of a data set: one for a table, or a folder of parts; .csv, .csv.gz, .csv.zst or .parquet."""

from __future__ import annotations

from pathlib import Path

from leadre.errors import InvalidInput

SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")


def find_files(folder: Path, table: str) -> tuple[Path, ...]:
    """Return the files of a table in their order; none without any.

    Args:
        folder: of the data set. A table is a file `table` + suffix, or a folder `table`, `table.csv` or
            `table.parquet` of parts, however deep; names that begin with `_` or `.` are not data but their writer's.
        table: its name.

    Raises:
        InvalidInput: the table is there twice, a folder of parts has none, or a part is of another format.
    """
    files = [path for suffix in SUFFIXES if (path := folder / f"{table}{suffix}").is_file()]
    folders = [path for suffix in ("", ".csv", ".parquet") if (path := folder / f"{table}{suffix}").is_dir()]
    if len(found := files + folders) > 1:
        raise InvalidInput(f"there are both {found[0].name} and {found[1].name}; remove one", source=str(folder))
    if not folders:
        return tuple(files)
    parts = sorted(
        path
        for path in folders[0].rglob("*")
        if path.is_file() and not any(name.startswith(("_", ".")) for name in path.relative_to(folders[0]).parts)
    )
    if not parts:
        raise InvalidInput("the folder holds no parts; fill it, or remove it", source=str(folders[0]))
    for path in parts:
        if not path.name.endswith(SUFFIXES):
            raise InvalidInput(f"is none of {', '.join(SUFFIXES)}; remove it from the parts", source=str(path))
    return tuple(parts)
