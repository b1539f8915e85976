"""A hook of MkDocs: pages whose source is not in docs/, and links between pages that plain text names by their path.

README.md and others stand at the top of the repository, where people look for them; the site shows the same files.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
FROM_ABOVE = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "benchmarks.md": "benchmarks/README.md",
}
"""Page of the site -> its source, from the top of the repository."""

LINK = re.compile(r"\[([^\]\n]*)\]\((?!\w+:|#)([^)#\s]*)(#[^)\s]*)?\)")
NAMED = re.compile(r"(?<![\w/`])docs/(adr/\d{4}|[\w/]+\.md)\b(?!\])")
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`|\[[^\]\n]*\]\([^)]*\))", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of FROM_ABOVE."""
    for page, source in FROM_ABOVE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001 - MkDocs' signature
    """Point links at pages of the site, and make links of the paths that prose names.

    A link to what is no page (a folder of sources) becomes its text.
    """
    here = page.file.src_uri
    source = FROM_ABOVE.get(here, f"docs/{here}")
    pages = {FROM_ABOVE.get(file.src_uri, f"docs/{file.src_uri}"): file.src_uri for file in files}

    def place(path: str) -> str | None:
        found = pages.get(path)
        return posixpath.relpath(found, posixpath.dirname(here) or ".") if found else None

    def link(match: re.Match[str]) -> str:
        text, path, anchor = match[1], match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        found = place(target)
        if not found and not target.startswith("docs/"):
            return text
        return f"[{text}]({found or path}{anchor})"

    def name(match: re.Match[str]) -> str:
        wanted = f"docs/{match[1]}"
        found = next((place(path) for path in pages if path == wanted or path.startswith(f"{wanted}-")), None)
        return f"[{match[0]}]({found})" if found and found != posixpath.basename(here) else match[0]

    parts = CODE.split(LINK.sub(link, markdown))
    return "".join(part if place % 2 else NAMED.sub(name, part) for place, part in enumerate(parts))
