"""Studies for end-to-end tests, with planted patient data."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from models.phantom_ct import HeadPhantom, make_head_ct
from pipelines.phantom_series import write_ct_series
from tests.end_to_end.harness import PATIENT_BIRTH_DATE, PATIENT_ID, PATIENT_NAME

BLEED_SEED = 7


@cache
def head_with_bleed() -> HeadPhantom:
    """A head CT with one intraparenchymal haemorrhage, and its truth."""
    return make_head_ct(seed=BLEED_SEED, kind="iph")


@cache
def head_without_bleed() -> HeadPhantom:
    """A head CT without blood."""
    return make_head_ct(seed=BLEED_SEED, kind="none")


def write_study(phantom: HeadPhantom, folder: Path, seed: int = BLEED_SEED) -> list[Path]:
    """Write a phantom as a CT series of the planted patient."""
    return write_ct_series(
        phantom,
        folder,
        seed=seed,
        patient_name=PATIENT_NAME,
        patient_id=PATIENT_ID,
        patient_birth_date=PATIENT_BIRTH_DATE,
    )
