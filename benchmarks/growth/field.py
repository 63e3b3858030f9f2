"""What the server holds."""

from __future__ import annotations

import re
from typing import cast

from benchmarks.backends.field import server


def server_memory() -> int:
    """Return the bytes in use by the one server, as it says itself."""
    told = cast("str", server().command("INFO", "memory"))
    found = re.search(r"used_memory:(\d+)", told)
    assert found is not None
    return int(found[1])
