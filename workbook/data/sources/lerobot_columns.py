"""Which columns of a LeRobot data file are read, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.data.sources.files import one_line

ACTION_COLUMNS = ("action", "actions")
INDEX_COLUMNS = ("episode_index", "frame_index", "task_index")
TIMESTAMP = "timestamp"
SUCCESS = ("next.success", "success")  # of a step; what an episode ends with says whether it succeeded


def action_columns(schema: pa.Schema) -> list[str]:
    """Every column of numbers whose name begins with 'action'; those inside a struct as struct.column."""
    return [name for field in schema if field.name.startswith("action") for name in _numbers_in(field.name, field.type)]


def _numbers_in(name: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_struct(kind):
        for inner in (kind.field(number) for number in range(kind.num_fields)):
            yield from _numbers_in(f"{name}.{inner.name}", inner.type)
    elif pa.types.is_floating(kind) or (is_list(kind) and is_number(kind.value_type)):
        yield name


def chosen_columns(schema: pa.Schema, named: str, place: str) -> list[str]:
    """The columns that make an action, side by side. named: '' is the usual one; 'a+b' joins two.

    Raises:
        InputError: there is no such column; names those there are.
    """
    if named:
        chosen = [named] if named in schema.names else [name.strip() for name in named.split("+")]
        for name in chosen:
            if _path(schema, name) is None:
                raise InputError(f"{place}: has no column '{one_line(name)}'{_what_to_give(schema)}")
        return chosen
    usual = next((name for name in ACTION_COLUMNS if name in schema.names), None)
    if usual is None:
        raise InputError(f"{place}: has no column 'action' or 'actions'{_what_to_give(schema)}")
    kinds = [field.type for field in schema if field.name == usual]
    if any(map(pa.types.is_struct, kinds)) and action_columns(schema):
        raise InputError(
            f"{place}, column '{usual}': holds {one_line(kinds[0])}, not lists of numbers{_what_to_give(schema)}"
        )
    return [usual]


def _what_to_give(schema: pa.Schema) -> str:
    found = action_columns(schema)
    if not found:
        return f" (it has {one_line(', '.join(schema.names))}); leave it out"
    joined = f", or join those that belong together: '{one_line('+'.join(found))}'" if len(found) > 1 else ""
    return f"; give --action-column with one of {one_line(', '.join(found))}{joined}"


def wanted_columns(schema: pa.Schema, named: str, place: str) -> list[str]:
    """The columns of a file to read: the actions, what orders them, when they were, and whether they succeeded.

    Raises:
        InputError: one of them is not there.
    """
    chosen = chosen_columns(schema, named, place)
    for name in INDEX_COLUMNS[:2]:
        if name not in schema.names:
            raise InputError(f"{place}: has no column '{name}', so its steps cannot be put in order; convert it again")
    actions = dict.fromkeys(path[0] for path in (_path(schema, name) for name in chosen) if path)
    return [*actions, *(name for name in (*INDEX_COLUMNS, TIMESTAMP, *SUCCESS) if name in schema.names)]


def fetched_columns(schema: pa.Schema, named: str, place: str) -> list[str]:
    """The columns of a file to keep a copy of: those that are read now, and every other of actions.

    Raises:
        InputError: as `wanted_columns`.
    """
    others = (f.name for f in schema if f.name.startswith("action") and any(_numbers_in(f.name, f.type)))
    return list(dict.fromkeys([*wanted_columns(schema, named, place), *others]))


def _path(schema: pa.Schema, name: str) -> list[str] | None:
    """The column that a name means and, where that is a struct, the way inside; None where there is none."""
    if name in schema.names:
        return [name]
    for field in schema:
        inside = name.removeprefix(f"{field.name}.")
        if inside != name and pa.types.is_struct(field.type):
            way = _path(pa.schema(list(field.type)), inside)
            if way:
                return [field.name, *way]
    return None


def actions_of(table: pa.Table, columns: list[str], place: str) -> list[NDArray[np.float64]]:
    """The numbers of each column: (N, A) each.

    Raises:
        InputError: one that holds other than numbers, or not as many in every row.
    """
    return [_numbers(_column(table, name), f"{place}, column '{name}'") for name in columns]


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    top, *inside = _path(table.schema, name) or [name]
    return pc.struct_field(table[top], inside) if inside else table[top]


def _numbers(column: pa.ChunkedArray, place: str) -> NDArray[np.float64]:
    kind = column.type
    if not is_number(kind) and not (is_list(kind) and is_number(kind.value_type)):
        raise InputError(f"{place}: holds {kind}, not lists of numbers; convert the data set again")
    if column.null_count:
        raise InputError(f"{place}: has {column.null_count} empty entries; convert the data set again")
    if not len(column):
        return np.zeros((0, 0))
    if is_number(kind):  # a feature of one number
        return column.to_numpy().astype(np.float64)[:, None]
    lengths = pc.list_value_length(column).to_numpy()
    width = int(lengths[0])
    if (lengths != width).any():
        row = int(np.argmax(lengths != width))
        raise InputError(f"{place}, row {row}: has {lengths[row]} numbers, and row 0 has {width}; convert it again")
    values = pc.list_flatten(column)
    if values.null_count:
        raise InputError(f"{place}: has {values.null_count} empty numbers; convert the data set again")
    return values.to_numpy().astype(np.float64).reshape(-1, width)


def integers_of(column: pa.ChunkedArray, place: str) -> NDArray[np.int64]:
    """An index column, whether its entries are numbers or lists of one number.

    Raises:
        InputError: it holds other than whole numbers.
    """
    if is_list(column.type):
        column = pc.list_element(column, 0)
    if not pa.types.is_integer(column.type):
        raise InputError(f"{place}: holds {column.type}, not whole numbers; convert the data set again")
    if column.null_count:
        raise InputError(f"{place}: has {column.null_count} empty entries; convert the data set again")
    return column.to_numpy().astype(np.int64)


def seconds_of(table: pa.Table) -> NDArray[np.floating]:
    """The timestamps, NaN where none is there: nothing is taken from a clock that cannot be read."""
    column = table[TIMESTAMP] if TIMESTAMP in table.column_names else None
    if column is not None and is_list(column.type):
        column = pc.list_element(column, 0)
    if column is None or not pa.types.is_floating(column.type):
        return np.full(table.num_rows, np.nan, dtype=np.float32)
    return column.to_numpy()


def success_of(table: pa.Table) -> NDArray[np.floating]:
    """1 where a step is marked as a success, 0 where as none, and NaN where nothing is said: (N,)."""
    for name in SUCCESS:
        column = table[name] if name in table.column_names else None
        if column is not None and is_list(column.type):
            column = pc.list_element(column, 0)
        if column is not None and (pa.types.is_boolean(column.type) or is_number(column.type)):
            return column.cast(pa.float64()).to_numpy()
    return np.full(table.num_rows, np.nan)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)
