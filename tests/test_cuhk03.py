import filecmp
import io
import shutil

import h5py
import numpy as np
import pytest
from cuhk03_release import draw_person, draw_texture, indices, is_for_testing, picture_name, put, write_release
from PIL import Image
from scipy.io import loadmat, savemat

import tfds_builders
from san_jax.errors import UserError
from tfds_builders import open_source

PEOPLE_PER_PAIR = (6, 4, 2, 1, 1)
PEOPLE = [(pair, person) for pair, count in enumerate(PEOPLE_PER_PAIR, 1) for person in range(1, count + 1)]
MAT = "cuhk03/cuhk03_release/cuhk-03.mat"
PROTOCOL = "cuhk03/cuhk03_new_protocol_config_labeled.mat"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("release"), people_per_pair=PEOPLE_PER_PAIR)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def own_release(release, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(release, tmp_path / "release")


def place(name: str) -> tuple[int, int, int]:
    pair, person, _, index = name.split("_")
    return int(pair), int(person), int(index)


def fields_of(protocol) -> dict[str, np.ndarray]:
    return {key: value for key, value in loadmat(protocol).items() if not key.startswith("__")}


def decode(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))


@pytest.mark.parametrize("kind", ["labeled", "detected"])
@pytest.mark.parametrize("split", ["train", "query", "gallery"])
def test_order_pids_and_camids_are_those_of_the_new_protocol(kind, split, release, data_dir):
    source = open_source(f"cuhk03/{kind}", split, data_dir=data_dir, manual_dir=release)
    protocol = loadmat(release / f"cuhk03/cuhk03_new_protocol_config_{kind}.mat")
    rows = protocol[f"{split}_idx"].ravel().astype(int) - 1
    labels = protocol["labels"].ravel()[rows].astype(int)
    train_labels = sorted({pid for pid in range(1, len(PEOPLE) + 1) if not is_for_testing(pid)})
    assert list(source.names) == [str(name[0]).removesuffix(".png") for name in protocol["filelist"].ravel()[rows]]
    assert source.camids.tolist() == [int(camera) - 1 for camera in protocol["camId"].ravel()[rows]]
    assert source.pids.tolist() == ([train_labels.index(pid) for pid in labels] if split == "train" else list(labels))
    assert source.pids.dtype == source.camids.dtype == np.int32


@pytest.mark.parametrize("kind", ["labeled", "detected"])
def test_pictures_are_those_of_the_release_pixel_by_pixel(kind, release, data_dir):
    source = open_source(f"cuhk03/{kind}", "gallery", data_dir=data_dir, manual_dir=release)
    for row in range(len(source)):
        record = source[row]
        drawn = draw_person(kind, *place(record["name"]), height=48, seed=0)
        np.testing.assert_array_equal(decode(record["image"]), drawn)
        assert (record["pid"], record["camid"]) == (source.pids[row], source.camids[row])
        assert record["name"] == source.names[row]
        assert record["texture"] == b""


def test_only_training_pictures_have_textures(release, data_dir):
    train = open_source("cuhk03/labeled_texture", "train", data_dir=data_dir, manual_dir=release)
    assert train.has_textures
    for row in range(0, len(train), 5):
        pair, person, _ = place(train.names[row])
        np.testing.assert_array_equal(decode(train[row]["texture"]), draw_texture(pair, person, height=48, seed=0))
    for split in ("query", "gallery"):
        source = open_source("cuhk03/labeled_texture", split, data_dir=data_dir)
        assert not source.has_textures
        assert {source[row]["texture"] for row in range(len(source))} == {b""}


@pytest.mark.parametrize("kind", ["labeled", "detected"])
@pytest.mark.parametrize("k", [0, 7, 19])
def test_classic_test_set_is_query_and_gallery_and_the_rest_is_for_training(kind, k, release, data_dir):
    name = f"cuhk03/{kind}_classic:{k}"
    train, query, gallery = (
        open_source(name, split, data_dir=data_dir, manual_dir=release) for split in ("train", "query", "gallery")
    )
    with h5py.File(release / MAT) as mat:
        tested = {tuple(map(int, person)) for person in mat[mat["testsets"][0, k]][()].T}

    def all_pictures(people):
        return [picture_name(*person, index) for person in people for index in indices(kind, *person)]

    assert query.names == gallery.names == all_pictures(person for person in PEOPLE if person in tested)
    np.testing.assert_array_equal(query.pids, gallery.pids)
    assert query.pids.tolist() == [PEOPLE.index(place(name)[:2]) + 1 for name in query.names]
    others = [person for person in PEOPLE if person not in tested]
    assert train.names == all_pictures(others)
    assert train.pids.tolist() == [others.index(place(name)[:2]) for name in train.names]
    assert train.camids.tolist() == [int(place(name)[2] > 5) for name in train.names]
    for source in (train, query):
        record = source[len(source) - 1]
        assert (record["name"], record["pid"]) == (source.names[-1], source.pids[-1])
        drawn = draw_person(kind, *place(record["name"]), height=48, seed=0)
        np.testing.assert_array_equal(decode(record["image"]), drawn)


def test_classic_config_stores_each_picture_once_and_starts_with_test_set_0(release, data_dir):
    source = open_source("cuhk03/labeled_classic", "query", data_dir=data_dir, manual_dir=release)
    assert source.names == open_source("cuhk03/labeled_classic:0", "query", data_dir=data_dir).names
    info = source._builder.info
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "pictures": sum(len(indices("labeled", *person)) for person in PEOPLE)
    }
    record = source._builder.as_data_source("pictures")[int(source._rows[0])]
    assert record["test_sets"].shape == (20,)
    assert record["test_sets"][0]


@pytest.mark.parametrize("variant", ["20", "-1", "x"])
def test_unknown_test_set_is_named(variant, release, data_dir):
    with pytest.raises(UserError, match=f"test set {variant} of labeled_classic is none of 0 to 19"):
        open_source(f"cuhk03/labeled_classic:{variant}", "train", data_dir=data_dir, manual_dir=release)


def test_new_protocol_has_no_test_sets(release, data_dir):
    with pytest.raises(UserError, match="cuhk03/labeled has no variants; leave out :3"):
        open_source("cuhk03/labeled:3", "train", data_dir=data_dir, manual_dir=release)


@pytest.mark.parametrize("name", ["labeled", "detected", "labeled_texture"])
def test_pictures_that_were_extracted_give_the_same_set(name, own_release, release, data_dir, tmp_path):
    kind = name.partition("_")[0]
    with h5py.File(own_release / MAT) as mat:
        grids = [mat[ref][()].T for ref in mat[kind][()].ravel()]
        for pair, person in PEOPLE:
            for index in indices(kind, pair, person):
                path = own_release / "cuhk03" / f"images_{kind}" / f"{picture_name(pair, person, index)}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(mat[grids[pair - 1][person - 1, index - 1]][()].T).save(path)
    (own_release / MAT).unlink()
    for split in ("train", "query", "gallery"):
        own = open_source(f"cuhk03/{name}", split, data_dir=tmp_path / "data", manual_dir=own_release)
        other = open_source(f"cuhk03/{name}", split, data_dir=data_dir, manual_dir=release)
        assert (own.names, own.pids.tolist()) == (other.names, other.pids.tolist())
        for row in range(0, len(own), 7):
            np.testing.assert_array_equal(decode(own[row]["image"]), decode(other[row]["image"]))
            assert own[row]["texture"] == other[row]["texture"]
    with pytest.raises(UserError, match=r"there is no .*cuhk-03\.mat"):
        open_source("cuhk03/labeled_classic", "train", data_dir=tmp_path / "data", manual_dir=own_release)


def test_extracted_pictures_that_are_missing_are_counted(own_release, tmp_path):
    folder = own_release / "cuhk03" / "images_labeled"
    folder.mkdir()
    (own_release / MAT).unlink()
    with pytest.raises(UserError, match=r"names 1_001_1_01\.png, which .*images_labeled lacks \(\d+ in all\)"):
        open_source("cuhk03/labeled", "train", data_dir=tmp_path / "data", manual_dir=own_release)


def test_preparing_twice_gives_the_same_bytes(release, data_dir, tmp_path):
    first = open_source("cuhk03/labeled_texture", "train", data_dir=data_dir, manual_dir=release)._builder.data_path
    second = open_source("cuhk03/labeled_texture", "train", data_dir=tmp_path, manual_dir=release)._builder.data_path
    names = sorted(path.name for path in first.iterdir())
    assert len(names) == 6
    assert filecmp.cmpfiles(first, second, names, shallow=False) == (names, [], [])


def refused(release, data_dir, *, config: str = "labeled_texture") -> str:
    """The error message of preparing; checks that it is one line and that only the lock is left in `data_dir`."""
    with pytest.raises(UserError) as caught:
        open_source(f"cuhk03/{config}", "train", data_dir=data_dir, manual_dir=release)
    message = str(caught.value)
    assert "\n" not in message
    assert [path.name for path in data_dir.iterdir()] == [f".cuhk03-{config}.lock"]
    return message


@pytest.mark.parametrize("manual_dir", ["", "nowhere", "empty"])
def test_error_for_a_missing_release_names_manual_dir_and_its_content(manual_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused(manual_dir and tmp_path / manual_dir, tmp_path / "data")
    assert "manual_dir" in message
    assert MAT in message


@pytest.mark.parametrize("config", ["labeled", "labeled_classic"])
def test_missing_mat_file_is_named(config, own_release, tmp_path):
    (own_release / MAT).unlink()
    assert f"there is no {own_release / MAT}" in refused(own_release, tmp_path / "data", config=config)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("config", ["labeled", "detected_classic"])
def test_truncated_mat_file_is_named(share, config, own_release, tmp_path):
    whole = (own_release / MAT).read_bytes()
    (own_release / MAT).write_bytes(whole[: int(share * len(whole))])
    message = refused(own_release, tmp_path / "data", config=config)
    assert f"{own_release / MAT} is cut short or not the release's" in message


def test_mat_file_without_the_pictures_is_named(own_release, tmp_path):
    with h5py.File(own_release / MAT, "a") as mat:
        del mat["labeled"]
    assert f"{own_release / MAT} is cut short or not the release's" in refused(own_release, tmp_path / "data")


def test_wrong_number_of_test_sets_is_reported(own_release, tmp_path):
    with h5py.File(own_release / MAT, "a") as mat:
        first = mat["testsets"][0, :3]
        del mat["testsets"]
        mat["testsets"] = first[None]
    assert "3 test sets in place of 20" in refused(own_release, tmp_path / "data", config="labeled_classic")


def test_pictures_missing_from_the_release_are_counted_and_the_first_is_named(own_release, tmp_path):
    with h5py.File(own_release / MAT, "a") as mat:
        cells = mat[mat["labeled"][0, 1]]
        cells[1, 2] = cells[2, 2] = put(mat, None)
    message = refused(own_release, tmp_path / "data")
    assert "cuhk03_new_protocol_config_labeled.mat names 2_003_1_02.png" in message
    assert "cuhk-03.mat lacks (2 in all)" in message


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "no labels"])
def test_bad_protocol_file_is_named(damage, own_release, tmp_path):
    path = own_release / PROTOCOL
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "text":
        path.write_text("<html>not found</html>")
    else:
        fields = fields_of(path)
        del fields["labels"]
        savemat(path, fields)
    message = refused(own_release, tmp_path / "data")
    assert f"there is no {path}" in message if damage == "missing" else f"{path} is not a protocol file" in message


def test_protocol_file_with_indices_beyond_its_list_is_named(own_release, tmp_path):
    fields = fields_of(own_release / PROTOCOL)
    fields["query_idx"][0, 0] = 60_000
    savemat(own_release / PROTOCOL, fields)
    assert f"{own_release / PROTOCOL}: indices or labels do not fit" in refused(own_release, tmp_path / "data")


def test_missing_textures_are_counted_and_the_first_is_named(own_release, tmp_path):
    folder = own_release / "cuhk03" / "texture_cuhk03_labeled"
    for name in ("1_002_1_02.png", "1_001_2_07.png"):
        (folder / name).unlink()
    message = refused(own_release, tmp_path / "data")
    assert f"{folder / '1_001_2_07.png'} is missing (2 textures of" in message
    shutil.rmtree(folder)
    assert f"{folder / '1_001_1_01.png'} is missing" in refused(own_release, tmp_path / "data")


@pytest.mark.parametrize("size", [0, 60, -40])
def test_unreadable_texture_is_named(size, own_release, tmp_path):
    path = own_release / "cuhk03" / "texture_cuhk03_labeled" / "2_001_1_02.png"
    path.write_bytes(path.read_bytes()[:size])
    assert f"{path} is not a readable picture" in refused(own_release, tmp_path / "data")


def test_unreadable_picture_in_the_middle_of_the_release_leaves_no_data_set(own_release, tmp_path):
    with h5py.File(own_release / MAT, "a") as mat:
        cells = mat[mat["labeled"][0, 3]]
        chunked = mat["#refs#"].create_dataset("damaged", data=np.ones((3, 20, 48), np.uint8), compression="gzip")
        chunk = chunked.id.get_chunk_info(0)
        cells[0, 0] = chunked.ref
    with open(own_release / MAT, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    assert f"{own_release / MAT} is cut short or not the release's" in refused(own_release, tmp_path / "data")


def test_variant_all_expands_to_the_20_classic_test_sets_only():
    classic = "cuhk03/labeled_classic"
    assert tfds_builders.all_variants(f"{classic}:all") == [f"{classic}:{k}" for k in range(20)]
    assert tfds_builders.all_variants(f"{classic}:3") == [f"{classic}:3"]
    with pytest.raises(UserError, match="cuhk03/labeled has no variants; leave out :all"):
        tfds_builders.all_variants("cuhk03/labeled:all")
