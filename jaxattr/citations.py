"""BibTeX of the papers behind methods and metrics."""

import difflib
import re
from functools import cache
from importlib.resources import files

_IMPLEMENTED = re.compile(r"^  implemented = \{(.*)\},\n", re.MULTILINE)


@cache
def entries() -> dict[str, tuple[str, ...]]:
    """Return BibTeX entries by what implements them: public names, and `jaxattr` for itself."""
    found: dict[str, tuple[str, ...]] = {}
    text = files("jaxattr").joinpath("references.bib").read_text(encoding="utf-8")
    for entry in text.split("\n\n"):
        names = _IMPLEMENTED.search(entry)
        for name in names[1].split(", ") if names else ("jaxattr",):
            found[name] = (*found.get(name, ()), _IMPLEMENTED.sub("", entry).strip())
    return found


def cite(*names: str) -> str:
    """Return BibTeX of the papers of methods and metrics, each paper once.

    Args:
        *names: of methods, one of another too (`smoothgrad:guided_backprop`), metrics and
            composites; jaxattr itself without any.

    Returns:
        BibTeX entries, blank lines between them, in the order of `names`.

    Raises:
        ValueError: if there is no such name, with the nearest ones.

    Example:
        >>> print(cite("rise"))
        @inproceedings{petsiuk2018rise,
          title = {{RISE}: Randomized Input Sampling for Explanation of Black-Box Models},
          author = {Petsiuk, Vitali and Das, Abir and Saenko, Kate},
          booktitle = {British Machine Vision Conference},
          year = {2018},
        }
        >>> cite("occlusion", "deconvnet").count("@")
        1
    """
    wanted = [part for name in names or ("jaxattr",) for part in name.split(":")]
    for name in wanted:
        if name not in entries():
            near = difflib.get_close_matches(name, entries(), n=3)
            hint = f"did you mean {' or '.join(near)}" if near else "`jaxattr methods` lists them"
            raise ValueError(f"there is no paper of {name!r}; {hint}")
    return "\n\n".join(dict.fromkeys(entry for name in wanted for entry in entries()[name]))
