"""A tiny synthetic CUHK03 release in the real on-disk format; identities differ in the colours of their clothes."""

import colorsys
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

NUM_TEST_SETS = 20


def write_release(
    folder: Path, *, people_per_pair=(6, 4, 2, 1, 1), height: int = 48, textures: bool = True, seed: int = 0
) -> Path:
    """Writes `folder`/cuhk03 in the layout of the release, and returns `folder`, which is the `manual_dir`.

    In the new protocol every third identity is for testing: one query picture per camera, the rest are gallery. In the
    classic one each test set holds a quarter of the identities of camera pairs 1 to 3, at least two.

    Args:
      folder: where `cuhk03/` is created.
      people_per_pair: number of identities seen by each of the five camera pairs.
      height: of the pictures in pixels, before a random factor of 0.9 to 1.2; also the side of the square textures.
      textures: also write `texture_cuhk03_labeled/` for all pictures of the training identities.
      seed: of the clothes, picture sizes and test sets.
    """
    root = Path(folder) / "cuhk03"
    (root / "cuhk03_release").mkdir(parents=True)
    people = [(pair, person) for pair, count in enumerate(people_per_pair, 1) for person in range(1, count + 1)]
    with h5py.File(root / "cuhk03_release" / "cuhk-03.mat", "w") as mat:
        for kind in ("detected", "labeled"):
            write_pictures(mat, kind, people_per_pair, height=height, seed=seed)
        rng = np.random.default_rng([seed, 1])
        candidates = [p for p in people if p[0] <= 3]
        size = max(2, len(candidates) // 4)
        chosen = [rng.choice(len(candidates), size, replace=False) for _ in range(NUM_TEST_SETS)]
        test_sets = [put(mat, np.array([candidates[i] for i in one], np.float64).T) for one in chosen]
        mat["testsets"] = np.array([test_sets], h5py.ref_dtype)
    for kind in ("labeled", "detected"):
        protocol = new_protocol(people, kind)
        savemat(root / f"cuhk03_new_protocol_config_{kind}.mat", protocol)
    if textures:
        (root / "texture_cuhk03_labeled").mkdir()
        for pid, (pair, person) in enumerate(people, 1):
            if not is_for_testing(pid):
                for index in indices("labeled", pair, person):
                    image = Image.fromarray(draw_texture(pair, person, height=height, seed=seed))
                    image.save(root / "texture_cuhk03_labeled" / f"{picture_name(pair, person, index)}.png")
    return Path(folder)


def is_for_testing(pid: int) -> bool:
    """Whether this label (from 1) is a test identity of the new protocol."""
    return pid % 3 == 0


def picture_name(pair: int, person: int, index: int) -> str:
    return f"{pair}_{person:03d}_{1 if index <= 5 else 2}_{index:02d}"


def indices(kind: str, pair: int, person: int) -> list[int]:
    """The cells (1 to 10) that hold a picture of this person; three to five per camera."""
    absent = {5} if (pair + person) % 2 else {9, 10}
    if kind == "detected":
        absent |= {4}
    return [index for index in range(1, 11) if index not in absent]


def new_protocol(people: list[tuple[int, int]], kind: str) -> dict[str, np.ndarray]:
    """The fields of `cuhk03_new_protocol_config_KIND.mat`; indices from 1."""
    names, labels, idx = [], [], {"train_idx": [], "query_idx": [], "gallery_idx": []}
    for pid, (pair, person) in enumerate(people, 1):
        for index in indices(kind, pair, person):
            names.append(f"{picture_name(pair, person, index)}.png")
            labels.append(pid)
            part = "query_idx" if index in (2, 7) else "gallery_idx"
            idx[part if is_for_testing(pid) else "train_idx"].append(len(names))
    fields = {key: np.array(rows, np.uint16).reshape(-1, 1) for key, rows in idx.items()}
    fields["labels"] = np.array(labels, np.uint16).reshape(-1, 1)
    fields["camId"] = np.array([int(name.split("_")[2]) for name in names], np.uint8).reshape(-1, 1)
    fields["filelist"] = np.array(names, object).reshape(-1, 1)
    return fields


def write_pictures(mat: h5py.File, kind: str, people_per_pair, *, height: int, seed: int) -> None:
    """Writes `labeled` or `detected`: camera pairs -> people x 10 cells, transposed as MATLAB stores them."""
    pairs = []
    for pair, count in enumerate(people_per_pair, 1):
        cells = np.empty((10, count), h5py.ref_dtype)
        for person in range(1, count + 1):
            present = indices(kind, pair, person)
            for index in range(1, 11):
                picture = draw_person(kind, pair, person, index, height=height, seed=seed)
                cells[index - 1, person - 1] = put(mat, picture.T if index in present else None)
        pairs.append(put(mat, cells))
    mat[kind] = np.array([pairs], h5py.ref_dtype)


def put(mat: h5py.File, array: np.ndarray | None) -> h5py.Reference:
    """Stores one cell's content (None: an empty cell) where MATLAB puts it, and returns a reference to it."""
    cells = mat.require_group("#refs#")
    item = cells.create_dataset(f"c{len(cells)}", data=np.zeros(2, np.uint64) if array is None else array)
    if array is None:
        item.attrs["MATLAB_empty"] = 1
    return item.ref


def clothes(pair: int, person: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB of top and trousers, uint8; hues a golden angle apart, so any two people differ."""
    turn = 0.618034 * (100 * pair + person) + 0.1 * seed
    top = colorsys.hsv_to_rgb(turn % 1, 0.9, 0.9)
    trousers = colorsys.hsv_to_rgb(3.3 * turn % 1, 0.9, 0.6)
    return (255 * np.array(top)).astype(np.uint8), (255 * np.array(trousers)).astype(np.uint8)


def draw_person(kind: str, pair: int, person: int, index: int, *, height: int, seed: int) -> np.ndarray:
    """Head, top and trousers on noisy grey, a little darker in the second camera; uint8 [H, W, 3], size varies."""
    rng = np.random.default_rng([seed, 2, kind == "labeled", pair, person, index])
    h = int(height * rng.uniform(0.9, 1.2))
    w = int(h * rng.uniform(0.36, 0.46))
    picture = np.full((h, w, 3), 128.0)
    left, right = w // 4 + rng.integers(-1, 2), 3 * w // 4 + rng.integers(-1, 2)
    top, trousers = clothes(pair, person, seed=seed)
    picture[h // 16 : h // 5, w // 3 : 2 * w // 3] = (220, 180, 150)
    picture[h // 5 : h // 2, left:right] = top
    picture[h // 2 : h - h // 16, left:right] = trousers
    gain = rng.uniform(0.85, 1.0) * (1.0 if index <= 5 else 0.85)
    return np.clip(picture * gain + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)


def draw_texture(pair: int, person: int, *, height: int, seed: int) -> np.ndarray:
    """The synthetic texture of a person: skin over top in the left half, trousers in the right; uint8 [H, H, 3]."""
    texture = np.empty((height, height, 3), np.uint8)
    top, trousers = clothes(pair, person, seed=seed)
    texture[: height // 3, : height // 2] = (220, 180, 150)
    texture[height // 3 :, : height // 2] = top
    texture[:, height // 2 :] = trousers
    return texture
