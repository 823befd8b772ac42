"""N4 and Atropos of ANTs, given the true brain mask; run by the Python that has antspyx.

``python atropos.py CASE.npz OUT.npz``; knows nothing of scorenode.
"""

from __future__ import annotations

import sys
import time

import ants  # type: ignore[import-not-found,unused-ignore]
import numpy as np


def main(case: str, out: str) -> None:
    """Write probabilities of CSF, grey and white matter, darkest first, and the seconds."""
    with np.load(case) as data:
        image = ants.from_numpy(data["t1"].astype(np.float32), spacing=data["spacing"].tolist())
        mask = ants.from_numpy(data["mask"].astype(np.float32), spacing=data["spacing"].tolist())
    start, cpu = time.perf_counter(), time.process_time()
    corrected = ants.n4_bias_field_correction(image, mask=mask, shrink_factor=4)
    found = ants.atropos(a=corrected, x=mask, i="kmeans[3]", m="[0.1,1x1x1]", c="[5,0]", verbose=0)
    maps = [one.numpy() for one in found["probabilityimages"]]
    values = corrected.numpy()
    means = [float((values * one).sum() / one.sum()) for one in maps]
    csf, gm, wm = (maps[k].astype(np.float32) for k in np.argsort(means))
    seconds = (time.perf_counter() - start, time.process_time() - cpu)
    np.savez(out, csf=csf, gm=gm, wm=wm, seconds=np.array(seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
