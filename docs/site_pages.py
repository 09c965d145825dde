"""Hook of mkdocs.yml: the texts at the root of the repository become pages of the site, with their links adjusted.

On a forge the same files link to each other by path. A link to a file that is no page becomes its path, as code.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""File at the root of the repository -> page of the site."""
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in ROOT_PAGES.items():
        text = (root(config) / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to root pages at their page; show links to other files of the repository as paths."""
    folder = posixpath.dirname(page.file.src_uri)
    from_root = page.file.src_uri in ROOT_PAGES.values()

    def adjusted(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link["path"]))
        if files.get_file_from_path(target) is not None:
            return link[0]
        in_repository = target if from_root else posixpath.normpath(posixpath.join("docs", target))
        if in_repository in ROOT_PAGES:
            uri = posixpath.relpath(ROOT_PAGES[in_repository], folder or ".")
            return f"[{link['text']}]({uri}{link['anchor'] or ''})"
        if (root(config) / in_repository).exists():
            return f"`{in_repository}`"
        return link[0]

    return LINK.sub(adjusted, markdown)


def root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent
