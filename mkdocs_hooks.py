"""Pages of the documentation site that are generated from other files of the repository.

* README.md, CHANGELOG.md, CONTRIBUTING.md and SECURITY.md become pages.
* The API reference has one page per public package. Its names are those of docs/api.md, the registered classes and the
  loss functions. The texts are the docstrings.
* In the navigation, a folder such as ``losses/`` stands for all its pages, so that a new part needs no line there.
* A link to a file or folder outside docs, such as ``../configs/coco.yaml``, leads to a page that shows its content.

So the pages of docs stay readable in the repository, and the site needs no address of the repository.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent
DOCS = ROOT / "docs"
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Files of the repository that are pages of the site."""
GENERATED = {"__pycache__", "build", "dist"}
LANGUAGES = {".json": "json", ".md": "md", ".py": "python", ".sh": "bash", ".toml": "toml", ".yaml": "yaml"}
MODULE = "members: false, show_root_heading: false, show_root_toc_entry: false"
"""Options of mkdocstrings for the docstring of a package."""
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
ROLE = re.compile(r":(?:func|class|meth|attr|mod|data):`~?([^`]+)`")


def on_config(config: Any) -> Any:
    """Show the version of the package, and list the pages of folders in the navigation."""
    config.copyright = f"lit_dense {version()}, Apache-2.0"
    config.nav = with_folders(config.nav)
    return config


def with_folders(entry: Any) -> Any:
    """Replace folders in a part of the navigation by their pages, in alphabetical order; README.md comes first."""
    if isinstance(entry, str) and entry.endswith("/"):
        if entry == "reference/":
            return [{package: f"{entry}{package}.md"} for package in sorted(reference())]
        pages = sorted(path.stem for path in (DOCS / entry).glob("*.md"))
        first = [f"{entry}README.md"] if "README" in pages else []
        return [*first, *({page: f"{entry}{page}.md"} for page in pages if page != "README")]
    if isinstance(entry, dict):
        return {title: with_folders(inner) for title, inner in entry.items()}
    return entry if isinstance(entry, str) else [with_folders(inner) for inner in entry]


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in DOCS.rglob("*.md")}
    for source, page in PAGES.items():
        texts[source] = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=rewritten(texts[source], source, page)))
    for package, content in reference().items():
        files.append(File.generated(config, f"reference/{package}.md", content=content))
    shown: set[str] = set()
    waiting = {target for path, text in texts.items() for target in outside(text, path)}
    while waiting:
        target = waiting.pop()
        shown.add(target)
        files.append(File.generated(config, source_page(target), content=page_of(target)))
        if (readme := ROOT / target / "README.md").is_file():
            waiting |= outside(readme.read_text("utf-8"), f"{target}/README.md") - shown
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links of the pages of docs lead to pages of the site."""
    source = f"docs/{page.file.src_uri}"
    return rewritten(markdown, source, page.file.src_uri) if (ROOT / source).is_file() else markdown


def targets(text: str, source: str) -> Iterator[tuple[re.Match[str], str]]:
    """Yield the links to existing files or folders, each with the path from the root of the repository."""
    for match in LINK.finditer(text):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if "://" not in match[2] and not path.startswith("..") and (ROOT / path).exists():
            yield match, path


def outside(text: str, source: str) -> set[str]:
    """Return the link targets of a text that need a page that shows them."""
    return {path for _, path in targets(text, source) if not path.startswith("docs/") and path not in PAGES}


def source_page(target: str) -> str:
    """Return the page that shows a file or folder of the repository."""
    return f"repository/{target}.md"


def rewritten(text: str, source: str, page: str) -> str:
    """Return a text of the repository with its links made relative to a page of the site."""
    parts, end = [], 0
    for match, path in targets(text, source):
        there = path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path) or source_page(path)
        link = posixpath.relpath(there, posixpath.dirname(page) or ".")
        parts += [text[end : match.start()], match[1], link, match[3]]
        end = match.end()
    return "".join([*parts, text[end:]])


def page_of(target: str) -> str:
    """Return a page that shows a file, or the README and every file of a folder."""
    path = ROOT / target
    if path.is_file():
        return f"# {target}\n\n{fenced(path)}"
    inner = [p for p in sorted(path.rglob("*")) if p.is_file() and not generated(p.relative_to(path).parts)]
    readme = path / "README.md"
    parts = [f"# {target}"]
    if readme in inner:
        parts = [rewritten(readme.read_text("utf-8"), f"{target}/README.md", source_page(target))]
    parts += [f"## {p.relative_to(path).as_posix()}\n\n{fenced(p)}" for p in inner if p != readme]
    return "\n\n".join(parts)


def generated(parts: tuple[str, ...]) -> bool:
    """Return whether a path belongs to what builds and tests leave behind."""
    return any(part in GENERATED or part.startswith(".") or part.endswith(".egg-info") for part in parts)


def fenced(path: Path) -> str:
    """Return a file as a block of code."""
    return f"````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text('utf-8', 'replace').rstrip()}\n````"


def version() -> str:
    """Return the version without importing the package."""
    return str(re.search(r'__version__ = "(.+)"', (ROOT / "lit_dense" / "_version.py").read_text("utf-8"))[1])  # type: ignore[index]


def public_names() -> dict[str, dict[str, str]]:
    """Return the public names by package, each with the path of its object."""
    names: dict[str, dict[str, str]] = {}
    for name, where in re.findall(r"^\| `(\w+)` \| (`[^|]*`) \|", (DOCS / "api.md").read_text("utf-8"), re.M):
        for package in where.replace("`", "").split(", "):
            names.setdefault(package, {})[name] = f"{package}.{name}"
    for package, points in registered().items():
        for point in points.values():
            names[package][point.partition(":")[2]] = point.replace(":", ".")
    for file in sorted((ROOT / "lit_dense" / "functional").glob("*.py")):
        function = f"{file.stem}_loss"
        if f"\ndef {function}(" in file.read_text("utf-8"):
            names["lit_dense.functional"][function] = f"lit_dense.functional.{file.stem}.{function}"
    return names


def registered() -> dict[str, dict[str, str]]:
    """Return the entry points by package."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")  # tomllib is not in Python 3.10
    groups = re.findall(r'^\[project\.entry-points\."([\w.]+)"\]\n((?:[^\[\n].*\n)+)', text, re.M)
    return {group: dict(re.findall(r'^(\w+) = "(.+?)"', lines, re.M)) for group, lines in groups}


def registered_rows(package: str) -> Iterator[str]:
    """Yield a row for each registered name: its page, if it has one, and its class."""
    folder = package.rpartition(".")[2]
    for name, point in registered()[package].items():
        page = f"{folder}/{name}.md"
        shown = f"[`{name}`](../{page})" if (DOCS / page).is_file() else f"`{name}`"
        yield f"| {shown} | [{point.partition(':')[2]}](#{point.replace(':', '.')}) |"


def reference() -> dict[str, str]:
    """Return the pages of the API reference by package."""
    names = public_names()
    packages = {name: [f"# {name}\n\n::: {name}\n    options: {{{MODULE}}}"] for name in sorted(names)}
    homes = {name: package for package in sorted(names) for name in names[package] if package != "lit_dense"}
    for package, parts in packages.items():
        if package in registered():
            parts.append("| registered name | class |\n|---|---|\n" + "\n".join(registered_rows(package)))
        elsewhere = []
        for name, path in sorted(names[package].items(), key=lambda item: item[0].lower()):
            if package == "lit_dense" and name in homes:
                elsewhere.append(f"* [`{name}`]({homes[name]}.md#{names[homes[name]][name]})")
            elif name != "__version__":
                parts.append(f"::: {path}\n    options: {{heading: {name}, toc_label: {name}}}")
        if elsewhere:
            parts.insert(1, "Also importable from here:\n\n" + "\n".join(elsewhere))
    return {package: "\n\n".join(parts) for package, parts in packages.items()}


class Docstrings(Extension):
    """Griffe extension that adapts docstrings to Markdown.

    Roles (``:func:`name```) become code, shapes such as ``[A] [P]`` are no links, and arguments of named tuples are
    attributes, because their constructor has no source.
    """

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Adapt the docstring of an object."""
        if obj.docstring is not None:
            text = ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", obj.docstring.value)
            text = re.sub(r"\](\s+)\[", r"]\1\\[", text)
            if any(str(base).endswith(("NamedTuple", "TypedDict")) for base in getattr(obj, "bases", [])):
                text = re.sub(r"^Args:$", "Attributes:", text, flags=re.M)
            obj.docstring.value = text
