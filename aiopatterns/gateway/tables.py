"""Reading the tables of a configuration file, and telling everything that is wrong with it at once.

A reader takes from a table what it knows, by name, and makes an object of it; what is left over is
unknown. Nothing stops at a mistake: each is noted with its place, and whoever reads goes on without
the object that could not be made::

    routes[2].policy.timeouts.total: must be None or a finite number > 0, not -1
    routes[2].mehtods: unknown key; did you mean 'methods'?

Values are checked by the constructors they are for, which also say what is allowed. A constructor
stops at the first mistake, so if it refuses, each value is tried alone.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Table", "is_list", "is_table"]

T = TypeVar("T")


@final
class Table:
    """One table of a file.

    Args:
        values: What stands in it.
        path: Where it stands; empty for the file itself.
        problem: Told where something is wrong, and what.

    Attributes:
        path: As given.
        values: As given.
    """

    __slots__ = ("_known", "_problem", "path", "values")

    def __init__(
        self, values: Mapping[str, Any], path: str, problem: Callable[[str, str], None]
    ) -> None:
        self.path: str = path
        self.values: Mapping[str, Any] = values
        self._problem = problem
        self._known: list[str] = []

    def at(self, name: str) -> str:
        """Return where a value stands."""
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, what: str) -> None:
        """Note that a value is wrong."""
        self._problem(self.at(name), what)

    def take(self, *names: str) -> dict[str, Any]:
        """Return the values of those names that are there."""
        self._known += names
        return {name: self.values[name] for name in names if name in self.values}

    def table(self, name: str, value: object = None) -> Table | None:
        """Return the table of that name if there is one.

        Args:
            name: Its name.
            value: What is read instead of what stands there, if it is not None.
        """
        value = self.take(name).get(name) if value is None else value
        if is_table(value):
            return self._inner(name, value)
        if value is not None:
            self.refuse(name, f"must be a table, not {value!r}")
        return None

    def tables(self, name: str) -> list[Table]:
        """Return the tables of a list of that name."""
        value = self.take(name).get(name, [])
        tables = [each for each in value if is_table(each)] if is_list(value) else None
        if tables is None or len(tables) != len(value):
            self.refuse(name, f"must be tables, each headed [[{self.at(name)}]], not {value!r}")
            return []
        return [self._inner(f"{name}[{number}]", each) for number, each in enumerate(tables)]

    def named(self, name: str) -> dict[str, Table]:
        """Return the tables in the table of that name, by their own names."""
        outer = self.table(name)
        if outer is None:
            return {}
        found = {key: outer.table(key) for key in outer.values}
        return {key: table for key, table in found.items() if table is not None}

    def make(self, fn: Callable[..., T], values: Mapping[str, Any], **needs: object) -> T | None:
        """Return ``fn(**values)``, or None if it refuses them.

        Args:
            fn: A constructor.
            values: Its arguments, named as in this table.
            needs: Those it needs, with values that are good, for each other to be tried beside.
        """
        missing = [name for name in needs if name not in values]
        for name in missing:
            self.refuse(name, "is missing")
        whole = None if missing else _refusal(fn, values)
        if not missing and whole is None:
            return fn(**values)
        alone = [name for name, value in values.items() if self._refuses(fn, needs, name, value)]
        if not alone and whole is not None:
            self._problem(self.path, whole)
        return None

    def end(self) -> None:
        """Note what nobody has taken."""
        for name in self.values:
            if name not in self._known:
                near = get_close_matches(name, self._known, n=1)
                self.refuse(
                    name, f"unknown key; did you mean {near[0]!r}?" if near else "unknown key"
                )

    def _refuses(
        self, fn: Callable[..., object], needs: Mapping[str, object], name: str, value: object
    ) -> bool:
        """Note what a constructor has against one value alone."""
        wrong = _refusal(fn, {**needs, name: value})
        if wrong is not None:
            self.refuse(name, wrong.removeprefix(f"{name} "))
        return wrong is not None

    def _inner(self, name: str, values: dict[str, Any]) -> Table:
        return Table(values, self.at(name), self._problem)


def is_table(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value of a TOML file is a table."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value of a TOML file is a list."""
    return isinstance(value, list)


def _refusal(fn: Callable[..., object], values: Mapping[str, Any]) -> str | None:
    """Return why a constructor does not take some values, or None if it does."""
    try:
        fn(**values)
    except (TypeError, ValueError) as error:
        return str(error)
    return None
