"""What `mkdocs build` has to know of this repository: a hook, named in mkdocs.yml.

Pages link to programs, tests and configs by their paths, so that the links work where the
repository is read. The site has copies of those files, as text, and its links lead there. The
tags of code blocks ("json config", "sh run"), by which the tests know what to do with them, are
left out, and so are the backslashes before bars in code, which only other readers of tables need.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
COPIES = "repository"
LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]+)")
BAR = re.compile(r"`[^`\n]*\\\|[^`\n]*`")
TAGS = re.compile(r"^( *```\w+) .*$", re.MULTILINE)


def linked_files(page: str, text: str) -> dict[str, str]:
    """Return {link: path in the repository} of the files outside docs that a page links to."""
    folder = PurePosixPath("docs", page).parent
    found = {link: posixpath.normpath(str(folder / link)) for link in LINK.findall(text)}
    return {link: path for link, path in found.items() if not path.startswith("docs/")}


def on_files(files: Any, config: Any) -> Any:
    """Add a copy of each file that a page links to."""
    for page in list(files.documentation_pages()):
        for path in linked_files(page.src_uri, page.content_string).values():
            copy = f"{COPIES}/{path}.txt"
            if files.get_file_from_path(copy) is None:
                source = str(ROOT / path)
                files.append(File.generated(config, copy, abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to the copies, and leave out tags and backslashes."""
    source = page.file.src_uri
    up = posixpath.relpath(".", posixpath.dirname(source) or ".")
    found = linked_files(source, markdown)
    led = LINK.sub(
        lambda link: f"{up}/{COPIES}/{found[link[0]]}.txt" if link[0] in found else link[0],
        markdown,
    )
    return BAR.sub(lambda code: code[0].replace("\\|", "|"), TAGS.sub(r"\1", led))
