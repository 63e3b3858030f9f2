from __future__ import annotations

from contextlib import ExitStack

import pytest

from aiopatterns.cli.exits import UsageError
from aiopatterns.cli.place import reserved


def test_a_place_is_kept_until_the_end_and_given_up_if_nothing_was_written(tmp_path):
    path = tmp_path / "page.html"
    with ExitStack() as stack:
        reserved(stack, "--html", str(path))
        assert [*tmp_path.iterdir()] != [path]
    assert not [*tmp_path.iterdir()]
    with ExitStack() as stack:
        reserved(stack, "--html", str(path)).write("text")
    assert [*tmp_path.iterdir()] == [path]


def test_what_cannot_be_written_is_wrong_usage_that_names_option_and_file(tmp_path):
    path = tmp_path / "no" / "page.html"
    with ExitStack() as stack, pytest.raises(UsageError) as caught:
        reserved(stack, "--html", str(path))
    assert str(caught.value) == f"--html cannot be written: No such file or directory: {path}"
    with ExitStack() as stack, pytest.raises(UsageError, match="--trace must name a file, and is"):
        reserved(stack, "--trace", "")
