import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image
from runs import save_run
from served import Served, person, write_shop

from san_jax import model as models
from san_jax.data import crops
from san_jax.gallery import feature_index, index_files
from san_jax.scoring.gallery_feats import GalleryFeats
from san_jax.serving import gallery_watch


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.load(save_run(tmp_path_factory.mktemp("run"), mode="baseline"))


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop")


def names(served):
    return [crop.name for crop in served.watch.galleries[0].shown.crops]


def test_pictures_of_a_gallery_are_shown_with_their_features(model, shop, tmp_path):
    served = Served(model, tmp_path, shop).look()
    shown = served.watch.galleries[0].shown
    assert names(served) == sorted(path.name for path in shop.iterdir())
    feats = model.features([shop / name for name in names(served)])
    np.testing.assert_allclose(shown.feats, feats, atol=1e-5)
    assert len(set(shown.ids.tolist())) == len(shown.crops) == len(shown.ready) == 9
    assert (served.watch.galleries[0].state, served.watch.galleries[0].done) == ("watching", 9)


def test_new_pictures_appear_and_gone_ones_vanish_while_the_others_keep_their_ids(model, shop, tmp_path):
    served = Served(model, tmp_path, shop).look()
    before = dict(zip(names(served), served.watch.galleries[0].shown.ids.tolist(), strict=True))
    version = served.watch.version
    (shop / "blue_1.png").unlink()
    person("grey").save(shop / "a.png")
    served.look()
    after = dict(zip(names(served), served.watch.galleries[0].shown.ids.tolist(), strict=True))
    assert set(after) - set(before) == {"a.png"}
    assert set(before) - set(after) == {"blue_1.png"}
    assert all(after[name] == before[name] for name in set(after) & set(before))
    assert after["a.png"] not in before.values()
    assert served.watch.version > version


def test_a_changed_picture_gets_another_id(model, shop, tmp_path):
    served = Served(model, tmp_path, shop).look()
    before = served.watch.galleries[0].shown.ids[names(served).index("red_0.png")]
    person("blue", size=(20, 40)).save(shop / "red_0.png")
    served.look()
    after = served.watch.galleries[0].shown.ids[names(served).index("red_0.png")]
    assert after != before
    assert served.watch.find(int(before)) is None


def test_nothing_is_read_anew_while_nothing_changes(model, shop, tmp_path, monkeypatch):
    served = Served(model, tmp_path, shop).look()
    version = served.watch.version
    monkeypatch.setattr(feature_index, "update", None)  # would fail if it were called
    served.look()
    assert (served.watch.version, served.watch.galleries[0].trouble) == (version, "")


def test_gallery_that_loses_all_its_pictures_is_empty_and_says_why(model, shop, tmp_path, capsys):
    served = Served(model, tmp_path, shop).look()
    shutil.rmtree(shop)
    served.look().look()
    assert names(served) == []
    assert "No such file or directory" in served.watch.galleries[0].trouble
    assert capsys.readouterr().err.count("No such file") == 1
    write_shop(shop)
    served.look()
    assert (len(names(served)), served.watch.galleries[0].trouble) == (9, "")


def test_unreadable_pictures_are_named(model, shop, tmp_path):
    (shop / "broken.png").write_bytes(b"no picture")
    gallery = Served(model, tmp_path, shop).look().watch.galleries[0]
    assert gallery.unreadable == {str(shop / "broken.png"): "it is no picture"}
    assert (gallery.total, gallery.done, len(gallery.shown.crops)) == (10, 10, 9)


def test_pictures_can_be_searched_while_others_are_embedded(model, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_watch, "SHOW_SECONDS", 0.0)
    served, seen = Served(model, tmp_path, shop), []
    show = served.watch._show

    def watched(gallery, shown):
        show(gallery, shown)
        seen.append((gallery.state, len(shown.crops), gallery.done))

    monkeypatch.setattr(served.watch, "_show", watched)
    served.look()
    sizes = [size for _, size, _ in seen]
    assert sizes == sorted(sizes)
    assert seen[0][:2] == ("embedding", 2)
    assert sizes[-1] == 9


def test_stopping_saves_what_is_embedded(model, shop, tmp_path, monkeypatch):
    served, halfway = Served(model, tmp_path, shop), threading.Event()
    add = gallery_watch._Growing.add

    def slow(self, rows, feats):
        add(self, rows, feats)
        if self._count >= 4:
            halfway.set()
            served.watch._stop.wait(20)

    monkeypatch.setattr(gallery_watch._Growing, "add", slow)
    served.watch.start()
    assert halfway.wait(60)
    served.watch.stop()
    stored, _ = index_files.read(tmp_path / "index0", model)
    assert 4 <= sum(map(len, stored.parts.values())) < 9


def test_thread_notices_a_new_picture_by_itself(model, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_watch, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(gallery_watch, "POLL_SHARE", 0)
    served = Served(model, tmp_path, shop)
    served.watch.start()
    person("grey").save(shop / "z.png")
    ends = time.monotonic() + 60
    while "z.png" not in names(served) and time.monotonic() < ends:
        time.sleep(0.05)
    served.watch.stop()
    assert names(served)[-1] == "z.png"


def test_times_are_those_of_the_list_or_else_of_the_cameras_exif(model, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:28 14:03:05"
    shop = write_shop(tmp_path / "shop", each=1)
    person("grey").save(shop / "shot.jpg", exif=exif)
    served = Served(model, tmp_path, shop).look()
    times = dict(zip(names(served), [crop.time for crop in served.watch.galleries[0].shown.crops], strict=True))
    assert times == {"blue_0.png": "", "green_0.png": "", "red_0.png": "", "shot.jpg": "2026-11-28T14:03:05"}
    seconds = served.watch.galleries[0].shown.times
    assert gallery_watch.text_of(seconds[3]) == "2026-11-28T14:03:05"
    assert np.isnan(seconds[:3]).all()


def test_times_of_a_list_go_before_those_of_the_files(model, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:28 14:03:05"
    person("grey").save(tmp_path / "shot.jpg", exif=exif)
    listed = crops.Crops("list", (crops.Crop(crops.Frame(tmp_path / "shot.jpg"), "shot", time="2020-01-01T00:00:00"),))
    served = Served(model, tmp_path, (tmp_path, lambda: listed)).look()
    assert [crop.time for crop in served.watch.galleries[0].shown.crops] == ["2020-01-01T00:00:00"]


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ({}, [0, 1, 2, 3]),
        ({"cameras": ["1"]}, [0, 2]),
        ({"cameras": ["1", "2"]}, [0, 1, 2]),
        ({"cameras": ["9"]}, []),
        ({"without": [11, 13, 99]}, [1, 3]),
        ({"since": 50.0}, [1]),
        ({"until": 50.0}, [0, 1]),
        ({"since": 0.0, "until": 20.0, "cameras": ["2"]}, []),
    ],
)
def test_pictures_are_left_out_by_camera_time_and_id(wanted, rows, tmp_path):
    found = [crops.Crop(crops.Frame(tmp_path), str(number)) for number in range(4)]
    camids, times = np.array(["1", "2", "1", ""]), np.array([10.0, 50.0, np.nan, np.nan])
    feats = np.zeros((4, 8), np.float32)
    shown = gallery_watch.Shown(
        found, np.array([11, 12, 13, 14]), feats, camids, times, GalleryFeats([feats]), crops.Crops("", ())
    )
    defaults = {"without": [], "cameras": [], "since": None, "until": None}
    assert np.flatnonzero(shown.allowed(**(defaults | wanted))).tolist() == rows


@pytest.mark.parametrize("time", ["2026-11-28T14:03:00", "2026-11-28T14:03:00+05:00", "2026-11-28 14:03"])
def test_times_are_those_on_the_cameras_clock(time):
    assert gallery_watch.text_of(gallery_watch.seconds(time)) == "2026-11-28T14:03:00"
