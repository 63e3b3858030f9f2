"""Secrets in a configuration file: named there, kept elsewhere, and shown nowhere.

::

    keys = { acme = "${ACME_KEY}" }                   a variable of the environment
    keys = { acme = "${file:/run/secrets/acme}" }     a file, its last newline dropped

A placeholder may be a part of a text, as in ``"redis://:${PASSWORD}@host"``. Whatever is put in
place of one counts as secret: no problem that is told later holds it, or a piece of it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.gateway.tables import is_list, is_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Placeholders"]

_PLACEHOLDER: Final = re.compile(r"\$\{([^{}]*)\}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE: Final = "file:"
# A message that holds so many characters in a row of a secret is not shown.
_PIECE: Final = 4


@final
class Placeholders:
    """Puts secrets in the place of their names, and keeps them out of messages.

    Args:
        folder: Where relative names of files begin.
        problem: Told the path of a value, and what is wrong with it.
    """

    __slots__ = ("_folder", "_problem", "_secrets")

    def __init__(self, folder: Path, problem: Callable[[str, str], None]) -> None:
        self._folder = folder
        self._problem = problem
        self._secrets: dict[str, str] = {}  # what each is called in the file

    def fill(self, value: Any, path: str = "") -> Any:
        """Return ``value``, a text, a list or a table of such, with all placeholders filled.

        Args:
            value: As it stands in the file.
            path: Where it stands.
        """
        if is_table(value):
            return {
                key: self.fill(each, f"{path}.{key}" if path else key)
                for key, each in value.items()
            }
        if is_list(value):
            return [self.fill(each, f"{path}[{number}]") for number, each in enumerate(value)]
        if isinstance(value, str):
            return _PLACEHOLDER.sub(lambda found: self._filled(found, path), value)
        return value

    def hide(self, message: str) -> str:
        """Return ``message`` without any secret, or without what it says if that cannot be."""
        bare = message  # with nothing in the place of a secret: a name may be like one
        for secret, name in self._secrets.items():
            for form in (secret, repr(secret)[1:-1]):
                message, bare = message.replace(form, name), bare.replace(form, "\0")
        if any(_shows(bare, secret) for secret in self._secrets):
            names = ", ".join(self._secrets.values())
            return f"is wrong; why is not shown, for that would tell of {names}"
        return message

    def _filled(self, found: re.Match[str], path: str) -> str:
        name: str = found[1]
        secret = self._file(name, path) if name.startswith(_FILE) else self._variable(name, path)
        if secret:
            self._secrets[secret] = found[0]
        return secret

    def _variable(self, name: str, path: str) -> str:
        if not _VARIABLE.fullmatch(name):
            self._problem(path, f"${{{name}}} names no variable and, without 'file:', no file")
            return ""
        value = os.environ.get(name)
        if value is None:
            self._problem(path, f"the environment variable {name} is not set")
        return value or ""

    def _file(self, name: str, path: str) -> str:
        file = self._folder / name.removeprefix(_FILE)
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            self._problem(path, f"cannot read {file}: {error.strerror}")
        except UnicodeDecodeError:
            self._problem(path, f"{file} is not UTF-8")
        return ""


def _shows(message: str, secret: str) -> bool:
    """Whether a message holds a piece of a secret."""
    pieces = range(len(secret) - _PIECE + 1) or range(1)
    return any(secret[at : at + _PIECE] in message for at in pieces)
