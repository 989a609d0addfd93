"""A Sphinx extension: a page for every method, metric and other public name, from its docstring."""

import inspect
import re
from pathlib import Path
from typing import Any

import jaxattr
from jaxattr import catalogue, citations, metrics, scores, viz
from jaxattr.catalogue import Method
from jaxattr.facts import FAMILIES
from jaxattr.image import maps
from jaxattr.rules import composites, lrp

DOCS = Path(__file__).parent
GALLERY = DOCS / "gallery"
SCENES = "the cat, the tripod, the cat and the espresso of four, the mistake, a random classifier"


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx reads them, and make docstrings reStructuredText."""
    app.connect("builder-inited", lambda _: write_all())
    app.connect("autodoc-process-docstring", restructure, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_all() -> None:
    """Write all pages that are made from code."""
    found = {f"methods/{name}.md": method_page(m) for name, m in own_methods().items()}
    found["methods/index.md"] = methods_index()
    found["gallery/index.md"] = gallery_page()
    found |= {f"api/{name}.md": page for name, page in api_pages().items()}
    for name, text in found.items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:  # what is unchanged is not built again
            path.write_text(text)
    for folder in ("methods", "api"):
        for path in (DOCS / folder).glob("*.md"):
            if f"{folder}/{path.name}" not in found:
                path.unlink()


def own_methods() -> dict[str, Method]:
    """Return the package's own methods, whatever else is installed."""
    return catalogue.METHODS | catalogue.ATTENDING


def method_page(method: Method) -> str:
    """Return the page of a method."""
    facts = method.facts
    says = {
        "cost": facts.cost,
        "family": facts.family,
        "maps": "`(B, H, W, 1)`" if facts.spatial else "of the shape of the images",
        "draws random numbers": "yes: it needs `key=`" if facts.random else "",
        "made of another method": "yes" if facts.wraps else "",
        "made for": "networks with attention" if facts.attends else "",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in says.items() if value)
    detailed = f"\n\n{directive(facts.details)}" if facts.details is not None else ""
    return f"""# {method.name}

{method.summary}

{picture(method.name)}

| | |
|---|---|
{rows}

{directive(method.function)}{detailed}

{measured(method.name)}

{refused(method.name)}

## Cite

```bibtex
{citations.cite(method.name)}
```
"""


def picture(name: str) -> str:
    """Return the strips of the photographs and of a method's maps, if it is in the gallery."""
    if not (GALLERY / f"{name}.webp").exists():
        return ""
    return (
        f"![photographs](../gallery/photographs.webp)\n\n![{name}](../gallery/{name}.webp)\n\n"
        f"EfficientNet-Lite0's maps of {SCENES} ([gallery](../gallery/index.md))."
    )


def measured(name: str) -> str:
    """Return the method's row of the table of photographs in `metrics.md`, with its head."""
    table = re.search(r"^\| \| insertion.*\n\|---.*\n((?:\|.*\n)+)", text("metrics"), re.MULTILINE)
    row = re.search(rf"^\| `{name}` \|.*$", table[1], re.MULTILINE) if table else None
    if table is None or row is None:
        return ""
    head = "\n".join(table[0].splitlines()[:2])
    return (
        "## Scores\n\nOn 200 photographs by EfficientNet-Lite0, beside a map of noise and one of "
        "the image's center\n([every method by every metric](../metrics.md)):\n\n"
        f"{head}\n{row[0]}\n" + "\n".join(table[1].splitlines()[:2])
    )


ROW = re.compile(r"^\| (.*?) \|.*\| (`.*) \|$", re.MULTILINE)
REASON = re.compile(r"((?:`\w+`(?:, )?)+): (.*?)(?=; `\w+`[,:]|$)")


def refused(name: str) -> str:
    """Return the rows of `architectures.md` that the method refuses, with the reasons."""
    found = [
        f"| {architecture} | {reason} |"
        for architecture, cell in ROW.findall(text("architectures"))
        for methods, reason in REASON.findall(cell)
        if f"`{name}`" in methods
    ]
    head = ["## Refuses\n", "| architecture | because |", "|---|---|"]
    return "\n".join([*head, *found]) if found else ""


def text(page: str) -> str:
    """Return a page that is written by hand."""
    return (DOCS / f"{page}.md").read_text()


def methods_index() -> str:
    """Return the page that lists the methods, family by family."""
    parts = ["# Methods\n"]
    for family in FAMILIES:
        members = [m for m in own_methods().values() if m.facts.family == family]
        if members:
            rows = [f"| [{m.name}]({m.name}.md) | {m.summary} | {m.facts.cost} |" for m in members]
            parts += [f"## {family.capitalize()}\n", "| | | cost |\n|---|---|---|", *rows, ""]
    names = "\n".join(own_methods())
    return "\n".join(parts) + f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"


def gallery_page() -> str:
    """Return the page that shows the maps of all methods below one another."""
    strips = [n for n in own_methods() if (GALLERY / f"{n}.webp").exists()]
    shown = "\n\n".join(f"[{n}](../methods/{n}.md)\n\n![{n}]({n}.webp)" for n in strips)
    return f"""# Gallery

What EfficientNet-Lite0 saw, by every method: red speaks for the class, blue against it. From left
to right: a *tiger cat*; a *tripod*; four photographs in one, explained for the *tiger cat* and for
the *espresso*; a clock out of focus, which the network takes for a *bubble*; and the cat again by a
network whose classifier is random. A map that is the same in the first and the last column does not
depend on what the network has learned of the class.

`python benchmarks/gallery.py docs/gallery` draws them.

![photographs](photographs.webp)

{shown}
"""


def api_pages() -> dict[str, str]:
    """Return the reference: everything public that is no method, each name on one page."""
    modules = {
        "scores": ("Scores", scores),
        "maps": ("Maps", maps),
        "lrp_rules": ("Rules of LRP", lrp),
        "composites": ("Composites", composites),
        "viz": ("Figures", viz),
        "metrics": ("Metrics", metrics),
        "jaxattr": ("Top level", jaxattr),
    }
    listed = {id(f) for m in own_methods().values() for f in (m.function, m.facts.details)}
    pages = {}
    for name, (title, module) in modules.items():
        own = {n: v for n, v in public(module).items() if id(v) not in listed}
        listed |= set(map(id, own.values()))
        pages[name] = api_page(title, module, own)
    contents = "\n".join(reversed(modules))
    pages["index"] = (
        "# Reference\n\n[Methods](../methods/index.md) have pages of their own.\n\n"
        f"```{{toctree}}\n{contents}\n```\n"
    )
    return pages


def api_page(title: str, module: Any, names: dict[str, Any]) -> str:
    """Return the page of a module and what it makes public."""
    intro = f"```{{eval-rst}}\n.. automodule:: {module.__name__}\n```\n"
    parts = [directive(value, f"{module.__name__}.{name}") for name, value in names.items()]
    return f"# {title}\n\n{intro}\n" + "\n\n".join(parts) + "\n"


def public(module: Any) -> dict[str, Any]:
    """Return our functions, classes and types in a module."""
    found = {n: v for n, v in vars(module).items() if not n.startswith("_") and callable(v)}
    return {n: v for n, v in found.items() if getattr(v, "__module__", "").startswith("jaxattr")}


def directive(value: Any, name: str = "") -> str:
    """Return the directive that documents a function or a class."""
    kind = "autoclass" if inspect.isclass(value) else "autofunction"
    return f"```{{eval-rst}}\n.. {kind}:: {name or f'jaxattr.{value.__name__}'}\n```"


SECTION = re.compile(r"^[A-Z][\w ]*:$")
CODE = re.compile(r"(`[^`]*`)")


def restructure(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make a docstring reStructuredText: equations are literal, `|` and `*` are themselves.

    An indented block after a blank line is an equation, unless it stands in a section such as
    `Args:`, which napoleon reads.
    """
    result, section, literal = [], False, False
    for before, line in zip(["", *lines], lines, strict=False):
        indented = line.startswith("    ")
        if line and not indented:
            section, literal = bool(SECTION.match(line)), False
        if indented and not section and not literal and not before:
            result += ["::", ""]
            literal = True
        result.append(line if literal or ">>>" in line else escape(line))
    lines[:] = result


def escape(line: str) -> str:
    """Escape what reStructuredText would take for markup, outside of code."""
    parts = CODE.split(line)
    return "".join(p if CODE.match(p) else re.sub(r"([|*])", r"\\\1", p) for p in parts)
