"""Tables as all commands print them."""

from __future__ import annotations

from collections.abc import Collection

from rich import box
from rich.table import Table
from rich.text import Text

__all__ = ["add_row", "facts", "table"]


def table(*headers: str, title: str | None = None, folded: Collection[str] | None = None) -> Table:
    """A table; a header that begins with ``>`` is one of figures. Long cells of the ``folded`` columns, by
    default of all, go on in the next line; those of others are cut."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
    )
    for header in headers:
        name = header.lstrip(">")
        fold = folded is None or name in folded
        made.add_column(
            name,
            justify="left" if name == header else "right",
            no_wrap=not fold,
            overflow="fold" if fold else "ellipsis",
        )
    return made


def facts() -> Table:
    """Rows of a name and what there is to say of it, without headers or lines."""
    return Table(box=None, show_header=False, padding=(0, 1))


def add_row(to: Table, *cells: str | Text) -> None:
    """Text as it is: sizes in brackets are no markup."""
    to.add_row(*[Text(cell) if isinstance(cell, str) else cell for cell in cells])
