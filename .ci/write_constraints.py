"""Print constraints.txt: exact versions of the packages that come_nav and its extras pulled into this environment."""

import re
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

EXTRAS = ("train", "test", "ros", "video", "learned")
OLDEST_PYTHON = "3.10"


def closure(name: str, extras: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """Return every installed distribution that ``name`` with ``extras`` needs, by normalised name, itself excluded."""
    found: dict[str, metadata.Distribution] = {}
    pending = [(name, extras)]
    seen = set()
    while pending:
        current, wanted = pending.pop()
        if (current, wanted) in seen:
            continue
        seen.add((current, wanted))
        try:
            distribution = metadata.distribution(current)
        except metadata.PackageNotFoundError:
            continue  # needed on another platform only
        found[re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()] = distribution
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *wanted)):
                pending.append((requirement.name, tuple(sorted(requirement.extras))))
    found.pop(re.sub(r"[-_.]+", "-", name).lower())
    return found


def pin(name: str, distribution: metadata.Distribution) -> str:
    """Return one line; the local tag (``+cpu``) goes, and versions that need a newer Python say so in a marker."""
    version = distribution.version.split("+")[0]
    requires = SpecifierSet(distribution.metadata.get("Requires-Python") or "")
    marker = "" if requires.contains(f"{OLDEST_PYTHON}.99") else '; python_version >= "3.11"'
    return f"{name}=={version}{marker}"


if __name__ == "__main__":
    print("# Versions that come_nav is tested with; written by `make constraints` from a working environment.")
    print("\n".join(pin(name, distribution) for name, distribution in sorted(closure("come_nav", EXTRAS).items())))
