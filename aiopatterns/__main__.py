"""``python -m aiopatterns`` is the command ``aiopatterns``.

Worker processes import this module under another name, so it does nothing for them.
"""

from __future__ import annotations

if __name__ == "__main__":
    from aiopatterns.cli.app import main

    raise SystemExit(main())
