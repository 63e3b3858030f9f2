"""Golden messages: samples of old versions in files, and what upcasters make of them for ever.

A message that was written two years ago is read by today's program, so what was once true of it
has to stay true. One file for each sample, in the repository, says it all::

    golden/order.v1.simple.json
        type, version, payload    as they were written; never changed again
        becomes                   the payload in each later form, step by step

:meth:`GoldenMessages.check` is the test. A new version adds to ``becomes``, and never changes what
stands there: the steps of last year give what they gave last year.

Example::

    GOLDEN = GoldenMessages(Path(__file__).parent / "golden")


    def test_old_messages_stay_readable():
        GOLDEN.check(upcasters)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, final
from urllib.parse import quote

import msgspec

from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import CodecError
from aiopatterns.core.validate import count, instance, text

if TYPE_CHECKING:
    from aiopatterns.messaging.versioning import Upcasters

__all__ = ["GoldenMessages"]

_CURE: Final = "look at it, then run check(..., update=True) once"


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payload in one form."""

    type: str
    version: int
    payload: Any

    def __str__(self) -> str:
        return f"{self.type} v{self.version}"


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file holds."""

    type: Annotated[str, msgspec.Meta(min_length=1)]
    version: Annotated[int, msgspec.Meta(ge=1)]
    payload: Any
    becomes: list[_Form] = []


_sample_of = JSON.decoder(Sample)


@final
class GoldenMessages:
    """Samples of old messages in a folder.

    Args:
        folder: Where the files are; made by the first :meth:`record`.
    """

    __slots__ = ("_folder",)

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(instance("folder", folder, (str, Path), "a path"))

    def record(self, type: str, version: int, payload: Any, *, name: str = "sample") -> Path:
        """Keep a sample of a version that is written now, so that it is read later.

        Args:
            type: Type of the message.
            version: Its version.
            payload: Its payload, of what JSON can hold.
            name: Tells several samples of one version apart.

        Returns:
            The file. One that is there already stays as it is.

        Raises:
            CodecError: JSON cannot hold the payload.
        """
        text("name", name)
        sample = Sample(text("type", type), count("version", version), payload)
        path = self._folder / f"{quote(type, safe='')}.v{version}.{quote(name, safe='')}.json"
        data = _written(sample)
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return path

    def check(self, upcasters: Upcasters, *, update: bool = False) -> int:
        """See that every sample upcasts, to what it has always become.

        Args:
            upcasters: With all steps registered.
            update: Whether to write down what samples become in forms that are new. What stands
                in a file already is never changed.

        Returns:
            The number of samples.

        Raises:
            AssertionError: A sample does not upcast, or becomes something else than it did; a new
                form is not written down; an old version has no sample; a step changes what it is
                given. The text names all of it.
        """
        wrong: list[str] = []
        covered: set[tuple[str, int]] = set()
        paths = sorted(self._folder.glob("*.json"))
        for path in paths:
            try:
                sample = _sample_of(path.read_bytes())
                covered.add((sample.type, sample.version))
                now = _grown(upcasters, sample)
                if update and len(now.becomes) > len(sample.becomes):
                    path.write_bytes(_written(now))
                elif len(now.becomes) > len(sample.becomes):
                    new = now.becomes[len(sample.becomes)]
                    wrong.append(f"{path.name} does not say what becomes of it as {new}: {_CURE}")
            except CodecError as error:
                wrong.append(f"{path.name}: {error}")
        wrong += [f"no sample of {form}" for form in upcasters.forms() if form not in covered]
        if wrong:
            raise AssertionError(f"{self._folder.name}:\n  " + "\n  ".join(wrong))
        return len(paths)


def _grown(upcasters: Upcasters, sample: Sample) -> Sample:
    """Return the sample with all that becomes of it now.

    Raises:
        CodecError: It does not upcast, or not as it did.
    """
    upcasters.check({(sample.type, sample.version): sample.payload})
    _, *later = upcasters.trail(sample.type, sample.version, sample.payload)
    forms = [_Form(each.type, each.version, _plain(each.payload)) for each in later]
    for then, now in zip(sample.becomes, forms, strict=False):
        if then != now:
            raise CodecError(f"it became {then} {then.payload!r}, and now {now} {now.payload!r}")
    if len(forms) < len(sample.becomes):
        raise CodecError(f"it became {sample.becomes[-1]}, but no step leads there any more")
    return msgspec.structs.replace(sample, becomes=forms)


def _plain(payload: Any) -> Any:
    """Return a payload as JSON gives it back."""
    return JSON.decode(JSON.encode(payload))


def _written(sample: Sample) -> bytes:
    return msgspec.json.format(JSON.encode(sample), indent=2) + b"\n"
