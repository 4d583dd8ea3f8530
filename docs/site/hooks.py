"""What the documentation site has beyond the pages in docs/: formulas, options, members, API, notebooks, linked files.

The pages in docs/ are plain Markdown that reads well without the site, too. MkDocs calls the functions `on_…` in this order.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import toymodels
from toymodels.cli import commands
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.figures.registry import FIGURES
from toymodels.registry import Registry
from toymodels.testing import checkable

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(\]\()([^)\s:#]+)([^)\s]*\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".md": "markdown"}
API = {
    "Features and tasks": ("core.features", "core.tasks", "theory.gates"),
    "First layers": ("core.layers", "layers.random"),
    "Readoffs": ("core.readoffs", "core.least_squares", "core.minimax", "readoffs.analytic"),
    "Losses and training": ("core.losses", "core.settings", "core.training", "core.worst_case", "runs.loop"),
    "Evaluation": ("core.network", "core.evaluation", "core.dispatch"),
    "Ground truth": (
        "ground_truth.folder",
        "ground_truth.module",
        "ground_truth.samples",
        "ground_truth.read",
        "ground_truth.dictionaries",
        "ground_truth.scores",
        "ground_truth.perturbations",
        "ground_truth.saelens",
        "ground_truth.hooked",
    ),
    "Registries": ("experiments.registry", "laws.registry", "figures.registry", "errors"),
}
FURTHER = {
    "Records and tables": {
        "runs.record": ("load_network", "read_metrics"),
        "runs.table": ("read_table", "read_frame", "write"),
    }
}
ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|preload|dns-prefetch|modulepreload)[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//|url\(["']?(?:https?:)?//"""
)
"""What makes a browser fetch something from another host."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code, the notebooks, and a page for every file outside docs/ that a page links to."""
    made = {"reference/options.md": options(), "reference/members.md": members(), "reference/python.md": api()}
    made |= {f"notebooks/{path.stem}.md": notebook(path) for path in sorted((ROOT / "notebooks").glob("*.py"))}
    for page in [*files.documentation_pages()]:
        made |= linked(page.src_uri, page.content_string)
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files outside docs/ into links to their pages, ```math into MathML, and a plugin's name into a title."""
    if not page.file.src_uri.startswith("source/"):
        text = typeset(text)
    text = re.sub(r"^```math\n(.*?)```$", lambda match: formula(match[1]), text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!-- plugin: (\S+) -->\n```python", r'```python title="\1"', text)
    return LINK.sub(lambda match: match[1] + site_link(page.file.src_uri, match[2]) + match[3], text)


def on_post_build(config: MkDocsConfig) -> None:
    """Stop if a page would load anything from elsewhere."""
    for path in [*Path(config.site_dir).rglob("*.html"), *Path(config.site_dir).rglob("*.css")]:
        found = ELSEWHERE.search(path.read_text())
        if found:
            raise PluginError(f"{path.name} loads a file from elsewhere: {found[0]}")


def formula(latex: str) -> str:
    """Return a displayed formula as MathML, which browsers show without a script."""
    return f'<div class="math">{convert(" ".join(latex.split()), display="block")}</div>'


def typeset(text: str) -> str:
    """Turn a_i and a^{2k} into subscripts and superscripts, and keep "m = 16" and "± 0.1" on one line, outside of code."""
    parts = re.split(r"(```.*?```|`[^`]*`)", text, flags=re.DOTALL)
    for position in range(0, len(parts), 2):
        part = re.sub(
            r"\b([^\W\d_])_(\{[^}]*\}|[A-Za-z0-9']+)",
            lambda match: f"{match[1]}<sub>{match[2].strip('{}')}</sub>",
            parts[position],
        )
        part = re.sub(r"(?<=\S) ([=±<≤≥]) (?=[−\d])", "\u00a0\\1\u00a0", part)
        part = re.sub(r"(?<=\d) (?=%)", "\u00a0", part)
        parts[position] = re.sub(r"\^(\{[^}]*\}|[-−]?\w+)", lambda match: f"<sup>{match[1].strip('{}')}</sup>", part)
    return "".join(parts)


def outside(uri: str, target: str) -> str | None:
    """Return the path in the repository of a link from a page of docs/ to a file outside docs/, else None."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri), target))
    return None if path.startswith("docs/") or not (ROOT / path).is_file() else path


def site_link(uri: str, target: str) -> str:
    """Return a link as it must be on the site: one to a file outside docs/ leads to the page made of that file."""
    path = outside(uri, target)
    if path is None:
        return target
    page = "index.md" if path == "README.md" else f"source/{path}.md"
    return posixpath.relpath(page, posixpath.dirname(uri) or ".")


def linked(uri: str, text: str) -> dict[str, str]:
    """Return a page for each file outside docs/ that a page links to: Markdown as it is, anything else as code."""
    pages = {}
    for _, target, _ in LINK.findall(text):
        path = outside(uri, target)
        if path and path != "README.md":
            content = (ROOT / path).read_text()
            code = f"# {path}\n\n````{LANGUAGES.get(Path(path).suffix, 'text')}\n{content}\n````\n"
            pages[f"source/{path}.md"] = content if path.endswith(".md") else code
    return pages


def options() -> str:
    """Return the page of every command's options, from the fields of its configuration and their docstrings."""
    package = griffe.load("toymodels", search_paths=[str(ROOT)])
    parts = [
        "# Options of every command",
        "Made from the code when this site is built. Names are the same in Python, sweep files, records and tables, with `_` "
        "where the command line has `-`. What each command is for: [commands](../commands.md).",
    ]
    for name, command in commands().items():
        rows = [option(field, command.config(), package) for field in dataclasses.fields(command.config())]
        table = "\n".join(["| option | value | default | |", "|---|---|---|---|", *rows])
        parts.append(f'## {name}\n\n{command.text}\n\n<div class="options" markdown>\n\n{table}\n\n</div>')
    return "\n\n".join(parts)


def option(field: dataclasses.Field[Any], config: type[Any], package: griffe.Object | griffe.Alias) -> str:
    """Return the row of an option; its text is the docstring below the field, in the class that defines it last."""
    home = next(base for base in config.__mro__ if field.name in inspect.get_annotations(base))
    attribute = package[home.__module__.removeprefix("toymodels.")][home.__name__][field.name]
    text = attribute.docstring.value if attribute.docstring else ""
    kind = str(attribute.annotation)
    positional = "Positional[" in kind
    missing = dataclasses.MISSING
    default = field.default_factory() if field.default_factory is not missing else field.default
    shown = "needed" if default is missing else "" if default is None or default in ((), {}) else f"`{worded(default)}`"
    dashed = field.name.replace("_", "-")
    names = [dashed.upper()] if positional else [f"--{dashed}", *([f"--no-{dashed}"] if kind == "bool" else [])]
    return (
        "| " + " | ".join(cell(part) for part in (", ".join(f"`{n}`" for n in names), values(kind), shown, text)) + " |"
    )


def values(kind: str) -> str:
    """Return in words what an option takes, from its type."""
    words = re.sub(r"\w+(\.\w+)*\.Positional\[(.*)\]$", r"\2", kind)
    words = re.sub(r"Literal\[([^\]]*)\]", lambda match: match[1].replace("'", "").replace(", ", " or "), words)
    words = re.sub(r"tuple\[tuple\[int, int\], \.\.\.\]", "k l …", words)
    words = re.sub(r"tuple\[(.*), \.\.\.\]", r"\1 …", words)
    words = re.sub(r"dict\[str, (.*)\]", r"names, each with \1", words)
    return (
        ""
        if words == "bool"
        else words.replace(" | None", "").replace(" | ", " or ").replace("Path", "path").replace("str", "text")
    )


def worded(value: Any) -> str:
    """Return a default as it is written on the command line."""
    return " ".join(map(worded, value)) if isinstance(value, tuple) else str(value)


def cell(text: str) -> str:
    """Return a text as the cell of a table: on one line, with bars that do not end it."""
    return " ".join(text.split()).replace("|", "\\|")


def members() -> str:
    """Return the page of all members of all registries, with their knobs, purposes and sources."""
    parts = [
        "# Members",
        "Everything that can be named in settings, on the command line or in a sweep file, made from the registries when this "
        "site is built. `name(knob=value)` sets a knob; the table shows each knob at its default.",
    ]
    for registry in (*checkable(), EXPERIMENTS, FIGURES):
        rows = ["| name | what it does | source |", "|---|---|---|"]
        for member in registry.values():
            source = cell(member.source).replace("docs/theory.md", "[theory](../theory.md)")
            rows.append(f"| `{called(member)}` | {cell(purpose(member))} | {source} |")
        parts += [f"## {plural(registry)}", '<div class="options" markdown>', "\n".join(rows), "</div>"]
    return "\n\n".join(parts)


def called(member: Any) -> str:
    """Return a member's name with its knobs at their defaults."""
    knobs = ", ".join(f"{name}={worded(value)}" for name, value in member.knobs.items())
    return f"{member.name}({knobs})" if knobs else member.name


def purpose(member: Any) -> str:
    """Return what a member is: what its registration says about it, or the first line of its docstring."""
    return getattr(member, "description", "") or member.purpose or getattr(member, "about", "")


def plural(registry: Registry[Any]) -> str:
    """Return a registry's noun as a heading."""
    words = {"loss": "Losses", "kind of run": "Kinds of runs", "kind of inputs": "Kinds of inputs"}
    words["distribution of values"] = "Distributions of values"
    return words.get(registry.noun, registry.noun.capitalize() + "s")


def api() -> str:
    """Return the page of the public names, from their docstrings."""
    homes = toymodels._HOMES
    listed = {module for modules in API.values() for module in modules}
    if listed != set(homes):
        raise PluginError(f"docs/site/hooks.py and toymodels/__init__.py name different modules: {listed ^ set(homes)}")
    sections = {title: {module: homes[module] for module in modules} for title, modules in API.items()} | FURTHER
    parts = [
        "# Python",
        "The public names. Those of the first sections are imported from `toymodels`, as in `from toymodels import evaluate`; "
        "[design](../design.md#from-python) shows them at work.",
    ]
    for title, modules in sections.items():
        parts.append(f"## {title}")
        parts += [f"::: toymodels.{module}.{name}" for module, names in modules.items() for name in names]
    return "\n\n".join(parts)


def notebook(path: Path) -> str:
    """Return a notebook in jupytext's percent format as a page: its text, and its code in blocks."""
    parts = []
    for head, body in re.findall(r"^# %%([^\n]*)\n(.*?)(?=^# %%|\Z)", path.read_text(), re.MULTILINE | re.DOTALL):
        if "[markdown]" in head:
            parts.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip())
        elif body.strip():
            parts.append(
                f"```python\n{body.strip().removeprefix('# ') if body.startswith('# %pip') else body.strip()}\n```"
            )
    files = f"The notebook: `notebooks/{path.stem}.ipynb`, or `{path.name}` beside it as plain Python."
    return "\n\n".join([*parts, files]) + os.linesep
