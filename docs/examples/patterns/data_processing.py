"""Data processing: this folder's own examples through the system, and what it found."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiopatterns.flow import Inline
from aiopatterns.processor import Corpus, DataProcessor

HERE = Path(__file__).resolve().parent


async def main() -> None:
    analysis = await DataProcessor(Corpus.at(HERE), executor=Inline()).run()
    assert analysis.files >= len(list(HERE.glob("*.py")))
    assert analysis.words["async"] > analysis.files  # every one is a coroutine, at least once
    print(f"{analysis.files} files; most frequent: {analysis.top_words[:3]}")


if __name__ == "__main__":
    asyncio.run(main())
