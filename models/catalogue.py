"""Where model packages are: those that come with scorenode, and folders the admin names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from models.base import BrokenPackage

BUILT_IN = Path(__file__).parent / "packages"
MANIFEST = "model.yaml"


def list_packages(folders: Iterable[Path]) -> dict[str, Path]:
    """Name every model package; a folder of the admin comes before one of ours.

    Parameters
    ----------
    folders : iterable of Path
        Each holds packages as folders; one that is not there is passed over, and so are
        folders whose name begins with a dot.

    Raises
    ------
    BrokenPackage
        A folder may not be read.
    """
    found: dict[str, Path] = {}
    for folder in (*folders, BUILT_IN):
        try:
            for path in _packages_in(folder):
                found.setdefault(path.name, path)
        except OSError as error:
            raise BrokenPackage(f"{folder} cannot be read: {error.strerror}.") from error
    return found


def find_package(name: str, folders: Iterable[Path]) -> Path:
    """Find a model package by name.

    Raises
    ------
    BrokenPackage
        There is none of this name.
    """
    found = list_packages(folders)
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise BrokenPackage(f"There is no model package {name!r}; there are: {known}.")
    return found[name]


def _packages_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path / MANIFEST).is_file()
    ]
