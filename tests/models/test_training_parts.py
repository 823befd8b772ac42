"""Folds, patches, augmentation and checkpoints of a training."""

from __future__ import annotations

import mmap
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from models.augmentation import augmented
from models.checkpoint import Checkpoint, Progressed, load_checkpoint, save_checkpoint
from models.folds import folds_of
from models.labelled_cases import BadData, find_cases
from models.recipe import BadRecipe, Recipe, load_recipe, recipe_path
from models.sampling import Batches
from models.training_cases import PreparedCase, argmax_of, cut, prepare
from tests.models.labelled import flat_content, tiny_content, tiny_recipe, write_nnunet

STILL = {
    "mirror": [],
    "degrees": 0,
    "shift": 0,
    "scale": [1, 1],
    "gain": 0,
    "bias": 0,
    "noise": 0,
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedCase]:
    root = tmp_path_factory.mktemp("cases")
    found = find_cases(write_nnunet(root / "data", 4), 3)
    return prepare(found.cases, found.values, tiny_recipe(), root / "cache", lambda done: None)


def recipe_with(**augmentation: object) -> Recipe:
    return Recipe.model_validate(tiny_content() | {"augmentation": {**STILL, **augmentation}})


def test_patients_stay_together_and_every_stratum_is_in_every_fold() -> None:
    random = np.random.default_rng(0)
    patients = [f"p{i // 2}" for i in range(120)]
    kinds = [("iph", "sdh", "none")[i // 2 % 3] for i in range(120)]
    volumes = np.where(np.array(kinds) == "none", 0.0, random.uniform(1, 60, 120))

    folds = folds_of(patients, kinds, volumes, 5, seed=1)

    for patient in set(patients):
        assert len({int(f) for f, p in zip(folds, patients, strict=True) if p == patient}) == 1
    for fold in range(5):
        inside = folds == fold
        assert 18 <= inside.sum() <= 30
        assert {kinds[i] for i in np.flatnonzero(inside)} == {"iph", "sdh", "none"}
    assert np.array_equal(folds, folds_of(patients, kinds, volumes, 5, seed=1))
    assert not np.array_equal(folds, folds_of(patients, kinds, volumes, 5, seed=2))


def test_strata_too_small_for_the_folds_are_joined() -> None:
    """Kinds with one case each still leave sizes, and sizes leave patients."""
    kinds = [f"kind {i}" for i in range(12)]

    by_size = folds_of(kinds, kinds, np.arange(12.0) + 1, 4, seed=1)
    by_nothing = folds_of(kinds[:6], kinds[:6], np.arange(6.0) + 1, 5, seed=1)

    assert np.bincount(by_size).tolist() == [3, 3, 3, 3]
    assert all(len({i // 4 for i in np.flatnonzero(by_size == fold)}) == 3 for fold in range(4))
    assert set(by_nothing.tolist()) == set(range(5))


def test_fewer_patients_than_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="2 patients are too few for 5 folds"):
        folds_of(["a", "a", "b"], ["", "", ""], np.ones(3), 5, seed=1)


def memory_of(array: np.ndarray) -> object:
    """Where the values of an array that is a view are."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def test_prepared_cases_are_mapped_from_disk(cases: list[PreparedCase]) -> None:
    for case in cases:
        for name, found in (("image", case.image), ("truth", case.truth)):
            assert isinstance(memory_of(found), mmap.mmap)
            assert np.array_equal(found, np.load(case.folder / f"{name}.npy"))
        assert case.image.shape == (1, 15, 14, 18)
        assert case.truth.shape == (15, 14, 18)
        for number, places in enumerate(case.places, start=1):
            assert len(places)
            assert {int(case.truth[tuple(place)]) for place in places} == {number}


@pytest.mark.parametrize("lost", ["image.npy", "truth.npy", "places_1.npy", "alike.npy"])
def test_a_case_that_lost_its_last_bytes_is_made_anew(tmp_path: Path, lost: str) -> None:
    """As after a power cut."""
    recipe = Recipe.model_validate(tiny_content(alike=[-1, 1]))
    found = find_cases(write_nnunet(tmp_path / "data", 2), 3)
    given = found.cases, found.values, recipe, tmp_path / "cache", lambda done: None
    (made, _) = prepare(*given)
    image, alike = np.array(made.image), made.alike
    path = made.folder / lost
    path.write_bytes(path.read_bytes()[:-2])

    (again, _) = prepare(*given)

    assert np.array_equal(again.image, image)
    assert np.array_equal(again.alike, alike)
    assert len(alike)


def test_a_case_that_was_made_by_half_is_made_anew(tmp_path: Path) -> None:
    found = find_cases(write_nnunet(tmp_path / "data", 2), 3)
    given = found.cases, found.values, tiny_recipe(), tmp_path / "cache", lambda done: None
    (made, _) = prepare(*given)
    image = np.array(made.image)
    (made.folder / "case.json").write_text("")
    (made.folder / "image.npy").write_bytes(b"")

    (again, _) = prepare(*given)

    assert np.array_equal(again.image, image)


def test_values_too_large_for_half_precision_are_told(tmp_path: Path) -> None:
    data = write_nnunet(tmp_path / "data", 2)
    path = data / "imagesTr" / "case_01_0000.nii.gz"
    image = nib.Nifti1Image.from_filename(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * np.float32(1e4), image.affine), path)
    found = find_cases(data, 3)
    content = tiny_content()
    content["package"]["preprocess"] = [{"orient": "RAS"}]
    recipe = Recipe.model_validate(content)

    with pytest.raises(BadData, match=r"case_01: .* zscore, minmax or rescale"):
        prepare(found.cases, found.values, recipe, tmp_path / "cache", lambda done: None)


@pytest.mark.parametrize("center", [(0, 0, 0), (7, 7, 9), (14, 13, 17)])
def test_a_patch_is_a_piece_of_the_case(
    cases: list[PreparedCase], center: tuple[int, int, int]
) -> None:
    patch = (8, 20, 6)

    inputs, truth = cut(cases[0], np.array(center), patch, tiny_recipe())

    assert inputs.shape == (1, *patch)
    assert truth.shape == patch
    whole = np.pad(cases[0].truth, ((0, 0), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(whole, patch)
    assert (windows.reshape(-1, *patch) == truth.numpy()).all(axis=(1, 2, 3)).any()
    assert not inputs[:, :, :3].any()


def test_a_batch_is_known_from_its_number(cases: list[PreparedCase]) -> None:
    recipe = tiny_recipe(batch=4)
    one, again = Batches(cases, recipe), Batches(cases, recipe)

    assert torch.equal(one[7][0], again[7][0])
    assert torch.equal(one[7][1], again[7][1])
    assert not torch.equal(one[7][0], one[8][0])
    assert not torch.equal(one[7][0], Batches(cases, recipe, rank=1)[7][0])


def test_patches_without_a_label_are_around_what_looks_alike(tmp_path: Path) -> None:
    """The lower half of each is air here."""
    content = flat_content(batch=8, foreground=0.0, steps=20, alike=[20, 40])
    content["augmentation"] = STILL
    content["network"] = {"spacing_mm": 1.0}
    recipe = Recipe.model_validate(content)
    found = find_cases(write_nnunet(tmp_path / "data", 3), 3)
    for given in found.cases:
        image = nib.Nifti1Image.from_filename(given.image)
        array = np.where(np.arange(image.shape[2]) < image.shape[2] // 2, -1000, 30)
        array = np.broadcast_to(array, image.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(array, image.affine), given.image)
    made = prepare(found.cases, found.values, recipe, tmp_path / "cache", lambda done: None)

    for case in made:
        values = case.image[tuple(case.alike.T)]
        assert len(values) > 20
        assert set(values.tolist()) == {30.0}
        assert not case.truth[tuple(case.alike.T)].any()
    batches = Batches(made, recipe)
    drawn = torch.cat([batches[step][0][:, 1] for step in range(20)])  # the middle slice
    assert (drawn.flatten(1).amax(1) > -1).all()
    anywhere = Recipe.model_validate(content | {"training": {**content["training"], "alike": None}})
    batches = Batches([replace(case, alike=case.alike[:0]) for case in made], anywhere)
    drawn = torch.cat([batches[step][0][:, 1] for step in range(20)])
    assert 0.3 < (drawn.flatten(1).amax(1) > -1).float().mean() < 0.7


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_as_many_patches_as_wanted_are_around_labelled_voxels(tmp_path: Path, share: float) -> None:
    """Patches of 5 mm in heads of 22 mm: chance alone often misses both balls."""
    content = flat_content(batch=8, foreground=share, steps=30)
    recipe = Recipe.model_validate(content | {"augmentation": STILL})
    found = find_cases(write_nnunet(tmp_path / "data", 3), 3)
    batches = Batches(
        prepare(found.cases, found.values, recipe, tmp_path / "cache", lambda done: None),
        recipe,
    )

    truth = torch.cat([batches[step][1] for step in range(30)])

    some = (truth > 0).flatten(1).any(1).float().mean()
    assert some > 0.98 if share else some < 0.8
    counts = torch.bincount(truth.flatten(), minlength=3)
    assert 0.5 < counts[1] / counts[2] < 2.0


def test_a_kind_is_drawn_as_often_as_the_recipe_says(
    cases: list[PreparedCase], tmp_path: Path
) -> None:
    made = []
    for kind, value in (("easy", 0.0), ("hard", 1.0)):
        folder = Path(shutil.copytree(cases[0].folder, tmp_path / kind))
        np.save(folder / "image.npy", np.full_like(cases[0].image, value))
        made.append(replace(cases[0], folder=folder, kind=kind))
    content = tiny_content(foreground=1.0, batch=8, kinds={"hard": 3}, steps=60)
    batches = Batches(made, Recipe.model_validate(content | {"augmentation": STILL}))

    drawn = torch.cat([batches[step][0].flatten(1).amax(1) for step in range(60)])

    assert float((drawn > 0.5).float().mean()) == pytest.approx(0.75, abs=0.06)


def test_no_augmentation_changes_nothing(cases: list[PreparedCase]) -> None:
    inputs, truth = cut(cases[0], np.array((7, 7, 9)), (12, 12, 12), tiny_recipe())

    found, labels = augmented(
        inputs[None].clone(), truth[None], recipe_with(), np.random.default_rng(0)
    )

    assert torch.allclose(found[0], inputs, atol=1e-4)
    assert torch.equal(labels[0, 0], truth)


def test_mirroring_mirrors_image_and_labels_from_right_to_left(cases: list[PreparedCase]) -> None:
    inputs, truth = cut(cases[0], np.array((7, 7, 9)), (12, 12, 12), tiny_recipe())
    recipe = recipe_with(mirror=["right"])
    seen = set()
    for seed in range(8):
        found, labels = augmented(
            inputs[None].clone(), truth[None], recipe, np.random.default_rng(seed)
        )
        mirrored = torch.equal(labels[0, 0], truth.flip(0))
        assert mirrored or torch.equal(labels[0, 0], truth)
        wanted = inputs.flip(1) if mirrored else inputs
        assert torch.allclose(found[0], wanted, atol=1e-4)
        seen.add(mirrored)
    assert seen == {True, False}


@pytest.mark.parametrize("size", [(20, 32, 16), (40, 24)], ids=["3-D", "2.5-D"])
def test_image_and_labels_move_together(size: tuple[int, ...]) -> None:
    """What is bright stays what is labelled, in patches that are not cubes."""
    axes = torch.meshgrid(*[torch.arange(n) - n * 0.45 for n in size], indexing="ij")
    truth = (torch.stack([a**2 for a in axes]).sum(0) < 36).long()
    inputs = truth[None].float() - (1.0 if len(size) == 2 else 0.0)
    content = flat_content() if len(size) == 2 else tiny_content()
    content["augmentation"] = {**STILL, "degrees": 30, "scale": [0.8, 1.2], "shift": 0.05}
    content["augmentation"]["elastic_mm"] = 1.0
    recipe = Recipe.model_validate(content)
    sizes = []
    for seed in range(5):
        found, labels = augmented(
            inputs[None].clone(), truth[None], recipe, np.random.default_rng(seed)
        )
        bright = found[0, 0] > (-0.5 if len(size) == 2 else 0.5)
        assert (bright == (labels[0, 0] > 0)).float().mean() > 0.995
        sizes.append(int(bright.sum()))
    assert max(sizes) > 1.1 * min(sizes)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_class_of_a_voxel_is_that_of_its_largest_share_the_first_of_equal_ones(
    classes: int,
) -> None:
    random = torch.Generator().manual_seed(0)
    quarters = torch.randint(0, 5, (classes - 1, 7, 11, 13), generator=random) / 4

    found = argmax_of(quarters)

    every = torch.cat([1 - quarters.sum(0, keepdim=True), quarters])
    assert torch.equal(found, every.argmax(0))
    assert set(found.flatten().tolist()) == set(range(classes))


def test_a_checkpoint_holds_everything_and_no_code(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    progressed = Progressed("abc", (0.5, 0.25), ((1, 0.75),))
    path = tmp_path / "checkpoint.safetensors"

    save_checkpoint(
        path,
        Checkpoint(
            progressed, {"network": network.state_dict()}, optimizer.state_dict(), {"last_epoch": 2}
        ),
    )
    found = load_checkpoint(path)

    assert found is not None
    assert found.progressed == progressed
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(found.states["network"])
    assert torch.equal(other.weight, network.weight)
    again = torch.optim.AdamW(other.parameters(), 0.5)
    again.load_state_dict(found.optimizer)
    assert again.param_groups[0]["lr"] == 0.1
    wanted, got = (o.state_dict()["state"][0] for o in (optimizer, again))
    assert all(
        torch.equal(torch.as_tensor(wanted[key]), torch.as_tensor(got[key])) for key in wanted
    )
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    assert load_checkpoint(path) is None
    path.write_bytes(b"PK\x03\x04 not ours")

    with pytest.raises(ValueError, match="is no checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["haemorrhage", "hippocampus"])
def test_the_recipes_that_ship_can_be_used(name: str) -> None:
    recipe = load_recipe(recipe_path(name))

    assert recipe.classes == len(recipe.names) + 1
    assert (recipe.slices is not None) == (name == "haemorrhage")
    assert recipe.package.data or name == "haemorrhage"


def test_values_that_look_alike_are_a_range() -> None:
    with pytest.raises(ValueError, match=r"training\.alike is a range"):
        Recipe.model_validate(flat_content(alike=[40, 20]))


def test_a_recipe_tells_all_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("architecture: transformer\ntraining: {steps: 0}\nnetwork: {}\npakage: {}\n")

    with pytest.raises(BadRecipe) as refused:
        load_recipe(path)

    for word in ("architecture", "training.steps", "pakage", "package"):
        assert word in str(refused.value)
    with pytest.raises(BadRecipe, match="there are: haemorrhage, hippocampus"):
        recipe_path("kidney")
