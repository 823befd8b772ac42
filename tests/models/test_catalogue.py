"""Where model packages are found."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from models.base import BrokenPackage
from models.catalogue import BUILT_IN, find_package, list_packages
from tests.models.tiny import copy_of


def test_packages_of_the_admin_are_found_by_the_name_of_their_folder(
    package: Path, tmp_path: Path
) -> None:
    assert find_package("package", [tmp_path]) == package
    assert list_packages([tmp_path])["package"] == package


def test_a_package_of_the_admin_comes_before_one_of_the_same_name(
    tiny_package: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        copy_of(tiny_package, tmp_path / name)

    found = find_package("package", [tmp_path / "a", tmp_path / "b"])

    assert found == tmp_path / "a" / "package"


def test_folders_without_a_manifest_hidden_or_not_there_are_passed_over(
    package: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    shutil.copytree(package, tmp_path / ".hidden")

    found = list_packages([tmp_path, tmp_path / "nowhere", tmp_path / "file"])

    assert found.keys() - list_packages([]).keys() == {"package"}


@pytest.mark.parametrize("name", ["nothing", "../package", "", ".", "package/", "/etc"])
def test_a_name_that_is_not_there_is_refused_with_those_that_are(
    package: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BrokenPackage, match=r"There is no model package .*; there are: .*package"):
        find_package(name, [tmp_path])


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)

    with pytest.raises(BrokenPackage, match=r"closed cannot be read: Permission denied\."):
        list_packages([closed])


def test_the_built_in_folder_lies_beside_the_code() -> None:
    assert BUILT_IN.name == "packages"
    assert BUILT_IN.parent.name == "models"
