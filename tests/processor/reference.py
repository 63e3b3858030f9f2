"""A plain serial count that shares nothing with the package, and trees to count."""

from __future__ import annotations

import hashlib
import io
import keyword
import os
import re
import tokenize
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Plain:
    files: int = 0
    size: int = 0
    lines: int = 0
    words: Counter[str] = field(default_factory=Counter)
    binary: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)
    copies: list[list[str]] = field(default_factory=list)


def plain_count(root: Path, suffix: str = "") -> Plain:
    """Count the plainest way there is."""
    found = Plain()
    contents: defaultdict[str, list[str]] = defaultdict(list)
    for folder, folders, names in os.walk(root):
        if suffix:
            folders[:] = [each for each in folders if each not in {"site-packages", "__pycache__"}]
        for name in names:
            path = Path(folder, name)
            if not name.endswith(suffix) or path.is_symlink() or not path.is_file():
                continue
            shown = path.relative_to(root).as_posix()
            data = path.read_bytes()
            if b"\0" in data[:8192]:
                found.binary.append(shown)
                continue
            try:
                text = data.decode()
            except UnicodeDecodeError:
                text = data.decode(errors="replace")
                found.undecodable.append(shown)
            found.files += 1
            found.size += len(data)
            found.lines += len(list(io.BytesIO(data)))
            found.words.update(run.lower() for run in re.findall(r"[^\W\d_]+", text))
            if data:
                contents[hashlib.md5(data).hexdigest()].append(shown)
    found.copies = sorted(sorted(group) for group in contents.values() if len(group) > 1)
    return found


def plain_names(source: str) -> Counter[str]:
    """Count the names of a valid source by Python's own tokenizer."""
    found: Counter[str] = Counter()
    inside = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        inside += (kind == "FSTRING_START") - (kind == "FSTRING_END")
        if kind == "NAME" and not inside and len(token.string) > 1:
            found[token.string] += not keyword.iskeyword(token.string)
    return +found


SOURCE = '''"""A docstring: naïve café, don't."""
import os  # a comment with words

PATTERN = r"\\d+" + b"bytes".decode() + f"{os.sep}"
def größe(value, *, other_value=0x1F):
    """Another 'docstring'
    over lines with a \\""" inside."""
    return value * 1_000 + other_value - 1e5
'''


def make_tree(root: Path) -> Path:
    """A tree with one of each: sources, prose, a binary, bad UTF-8, copies, links, an empty one."""
    files = {
        "alpha/one.py": SOURCE.encode(),
        "alpha/two.py": b'x = \'unterminated\ny = """never closed\nvalue = 1',
        "alpha/copy.py": SOURCE.encode(),
        "beta/deep/er/notes.txt": "Straße İstanbul ½ x²y\r\nzwei Wörter_und 3zahlen\n".encode(),
        "beta/latin.txt": "caf\xe9 au lait\n".encode("latin-1"),
        "beta/image.bin": b"\x89PNG\r\n\0\0\0",
        "beta/empty.txt": b"",
        "beta/other_empty.txt": b"",
        "top.md": SOURCE.encode(),
        "no_suffix": b"just words, no line feed",
    }
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "link.py").symlink_to(root / "alpha" / "one.py")
    (root / "alpha" / "loop").symlink_to(root, target_is_directory=True)
    return root
