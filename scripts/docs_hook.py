"""What lies outside docs/ and has a page in the site: read where it is, so that there is one copy.

mkdocs calls these functions. A link from docs/ to such a file is written as GitHub follows it,
`../examples/README.md`, and is turned into a link inside the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "constraints.txt",
    "pyproject.toml",
    "benchmarks/*.md",
    "deploy/*",
    "benchmarks/*.svg",
    "evals/README.md",
    "evals/*/README.md",
    "examples/README.md",
    "examples/*.ipynb",
    "examples/*/*.yaml",
    "examples/*/*.csv",
    "search_spaces/*.yaml",
)


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the files from outside docs/, under their own paths."""
    top = Path(config.config_file_path).parent
    for pattern in OUTSIDE:
        for path in sorted(top.glob(pattern)):
            place = path.relative_to(top).as_posix()
            level = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, place, abs_src_path=str(path), inclusion=level))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turns links to files above docs/, and to folders with a README, into links to pages."""
    if page.file.generated_by is None:
        return markdown.replace("](../", "](")
    folder = Path(config.config_file_path).parent / Path(page.file.src_uri).parent

    # A page of docs/ is at the top of the site.
    markdown = markdown.replace("](docs/", "](")

    def named(link: re.Match[str]) -> str:
        inside = (folder / link[1] / "README.md").is_file()
        return f"]({link[1]}/README.md)" if inside else link[0]

    return re.sub(r"\]\(([\w./-]+)\)", named, markdown)
