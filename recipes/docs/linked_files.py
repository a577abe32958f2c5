"""A hook of mkdocs: files of the repository that pages link to become part of the site.

The pages of docs/ are read on a forge as well, where a link such as ../CHANGELOG.md or ../attribench/interface.py leads to
the file. In the site it leads to the same file as a page below repository/: Markdown as it is, other text as a block of
code, pictures as they are, and a page of a built site (the boards') with the folder around it. Files that such Markdown links
to come along too. So nothing is written twice, and a link that leads nowhere stays as it is and fails `mkdocs build --strict`.
"""

import posixpath
import re
import shutil
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent.parent
BESIDE = "repository"
LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^()\s#]+)((?:#[^()\s]*)?\))")
"""](target#part) with a relative target."""
FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".toml": "toml", ".cff": "yaml", ".json": "json"}
PLAIN = {".md", ".html", ".png", ".webp", ".svg", ".jpg"}
"""What is not shown as code."""

_origins: dict[str, str] = {}
"""The path in the repository of each page of the site, by its path in the site."""


def on_files(files: Files, config) -> Files:
    """Adds every file that is linked to from the pages, the nav, or the files that were added so."""
    docs = Path(config.docs_dir).resolve().relative_to(ROOT).as_posix()
    _origins.clear()
    _origins.update({file.src_uri: f"{docs}/{file.src_uri}" for file in files})
    waiting = [origin for origin in _origins.values() if origin.endswith(".md")]
    waiting += [_in_repository(uri) for uri in _uris(config.nav or []) if uri.startswith(f"{BESIDE}/")]
    while waiting:
        origin = waiting.pop()
        uri = _in_site(origin, docs)
        if uri not in _origins:
            _origins[uri] = origin
            files.append(_file(origin, uri, config))
        if origin.endswith(".md"):
            text = FENCE.sub("", (ROOT / origin).read_text())
            targets = {posixpath.normpath(posixpath.join(posixpath.dirname(origin), m[2])) for m in LINK.finditer(text)}
            inside = {t for t in targets if not t.startswith("..") and (ROOT / t).is_file()}
            waiting += sorted(t for t in inside if _in_site(t, docs) not in _origins)
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """The same text with its links as they are in the site."""
    uri = page.file.src_uri
    docs = Path(config.docs_dir).resolve().relative_to(ROOT).as_posix()
    if not _origins[uri].endswith(".md"):
        page.meta |= {"search": {"exclude": True}, "hide": ["toc"]}
        return markdown

    def moved(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(_origins[uri]), match[2]))
        there = _in_site(target, docs)
        return match[1] + posixpath.relpath(there, posixpath.dirname(uri)) + match[3] if there in _origins else match[0]

    return LINK.sub(moved, markdown)


def on_post_build(config) -> None:
    """Copies the folders of linked sites."""
    for uri, origin in _origins.items():
        if origin.endswith(".html") and uri.startswith(f"{BESIDE}/"):
            shutil.copytree((ROOT / origin).parent, Path(config.site_dir, uri).parent, dirs_exist_ok=True)


def _file(origin: str, uri: str, config) -> File:
    path = ROOT / origin
    if path.suffix in PLAIN:
        return File.generated(config, uri, abs_src_path=str(path))
    fence = f"```{LANGUAGES.get(path.suffix, 'text')}"
    return File.generated(config, uri, content=f"# {origin}\n\n{fence}\n{path.read_text().rstrip()}\n```\n")


def _in_site(origin: str, docs: str) -> str:
    """The path in the site of a file of the repository."""
    if origin.startswith(f"{docs}/"):
        return origin.removeprefix(f"{docs}/")
    if origin.endswith("/README.md"):  # named by its folder, since mkdocs takes a README for the first page of a section
        return f"{BESIDE}/{origin.removesuffix('/README.md')}.md"
    plain = Path(origin).suffix in PLAIN
    return f"{BESIDE}/{origin}" if plain else f"{BESIDE}/{origin}.md"


def _in_repository(uri: str) -> str:
    """The file of the repository that a page of the nav below repository/ stands for."""
    origin = uri.removeprefix(f"{BESIDE}/")
    plain = origin.removesuffix(".md")
    return next((path for path in (origin, f"{plain}/README.md") if (ROOT / path).is_file()), plain)


def _uris(nav: list | dict | str) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [uri for part in (nav.values() if isinstance(nav, dict) else nav) for uri in _uris(part)]
