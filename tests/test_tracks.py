from pathlib import Path

import numpy as np

from san_jax.data.crops import Crop
from san_jax.data.frames import Frame
from san_jax.gallery import tracks


def test_track_has_the_mean_of_its_features_and_shows_the_picture_nearest_to_it():
    names = ["a1", "b1", "a2", "c1", "a3"]
    crops = [Crop(Frame(Path(name)), name, track={"a": "7", "b": "9", "c": ""}[name[0]]) for name in names]
    feats = np.array([[0, 0], [5, 5], [1, 0], [3, 3], [5, 0]], np.float32)
    found = tracks.by_track(crops, names, feats)
    assert [crop.name for crop in found.crops] == ["a2", "b1", "c1"]
    np.testing.assert_array_equal(found.feats, np.array([[2, 0], [5, 5], [3, 3]], np.float32))
    assert found.titles == ["track 7: 3 pictures, a2", "track 9: 1 picture, b1", "c1"]


def test_pictures_without_tracks_stay_as_they_are():
    crops = [Crop(Frame(Path("same.jpg")), "same"), Crop(Frame(Path("same.jpg")), "same")]
    feats = np.arange(4, dtype=np.float32).reshape(2, 2)
    found = tracks.by_track(crops, ["one", "two"], feats)
    assert (found.crops, found.titles) == (crops, ["one", "two"])
    np.testing.assert_array_equal(found.feats, feats)


def test_pictures_of_one_group_are_averaged_whatever_their_track():
    crops = [Crop(Frame(Path(name)), name, track=name) for name in "abc"]
    feats = np.array([[0], [3], [6]], np.float32)
    found = tracks.averaged(crops, ["a.jpg", "b.jpg", "c.jpg"], feats, groups=["wanted"] * 3)
    assert (found.crops, found.titles) == ([crops[1]], ["wanted: 3 pictures, b.jpg"])
    assert found.feats.tolist() == [[3.0]]
