import sys
import threading
import time
from pathlib import Path

import av
import boxed_frames
import numpy as np
import pytest
from boxed_frames import write_frames
from PIL import Image

from san_jax.data.frames import Cache, Folder, Frame, Video, is_video, open_frames
from san_jax.errors import UserError

NUM_FRAMES = 90  # more than are kept


def grey_of(number):
    return 20 + 2 * number


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A video whose frames are of one grey each."""
    path = tmp_path_factory.mktemp("film") / "street.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)  # without loss
        stream.width, stream.height, stream.pix_fmt = 64, 32, "rgb24"
        for number in range(1, NUM_FRAMES + 1):
            picture = np.full((32, 64, 3), grey_of(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_pictures_of_a_folder_are_found_by_number_and_by_the_end_of_their_path(tmp_path):
    folder = write_frames(tmp_path / "seq" / "img1", suffix=".jpg")
    (tmp_path / "seq" / "notes.txt").write_text("words")
    frames = open_frames(tmp_path / "seq")
    first = Frame(folder / "000001.jpg")
    assert frames.numbered(1) == first
    assert frames.numbered(9) is None
    for name in ("000001", "000001.jpg", "img1/000001.jpg", "img1/000001"):
        assert frames.named(name) == first
    assert frames.named("1.jpg") is None
    assert frames.name_of(first) == "img1/000001.jpg"
    assert frames.size(first) == boxed_frames.SIZE
    assert frames.image(first).size == boxed_frames.SIZE
    assert "notes.txt" in frames.remark


def test_frames_of_a_video_are_counted_from_one_and_found_by_number_and_name(film):
    frames = open_frames(film)
    assert frames.size(Frame(film, 1)) == (64, 32)
    assert frames.numbered(5) == frames.named("street_5") == frames.named("street_000005.jpg") == Frame(film, 5)
    assert frames.numbered(0) is frames.numbered(NUM_FRAMES + 1) is frames.named("street") is None
    assert frames.name_of(Frame(film, 5)) == "street-000005"


@pytest.mark.parametrize("order", [range(1, NUM_FRAMES + 1), [3, 2, 1], [80, 2, 81, 80]])
def test_frames_of_a_video_can_be_asked_for_in_any_order(order, film):
    frames = Video(film)
    for number in order:
        assert (np.asarray(frames.image(Frame(film, number))) == grey_of(number)).all()


def test_threads_share_a_video(film):
    frames, found = Video(film), {}

    def read(first):
        for number in range(first, NUM_FRAMES + 1, 4):
            found[number] = np.unique(frames.image(Frame(film, number))).tolist()

    threads = [threading.Thread(target=read, args=[first]) for first in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [grey_of(number)] for number in range(1, NUM_FRAMES + 1)}


def test_frame_after_the_end_of_a_video_is_an_error_with_its_reason(film):
    with pytest.raises(ValueError, match=f"the video ends after frame {NUM_FRAMES}"):
        Video(film).image(Frame(film, NUM_FRAMES + 1))


def test_what_is_no_video_is_refused(film, tmp_path):
    (tmp_path / "words.mp4").write_text("words")
    with pytest.raises(UserError, match=r"words\.mp4 cannot be read as a video"):
        open_frames(tmp_path / "words.mp4")
    (tmp_path / "cut.mov").write_bytes(film.read_bytes()[:900])
    with pytest.raises(UserError, match=r"cut\.mov (has no frame that can be decoded|cannot be read as a video)"):
        open_frames(tmp_path / "cut.mov")
    with pytest.raises(UserError, match=r"nothing\.mp4 cannot be read as a video \(No such file"):
        open_frames(tmp_path / "nothing.mp4")
    (tmp_path / "folder.mp4").mkdir()
    assert not is_video(tmp_path / "folder.mp4")


def test_without_pyav_the_way_to_install_it_is_said(film, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'san_jax\[video\]'"):
        Video(film)


def numbered(number):
    return Frame(Path("film.mp4"), number)


def test_cache_computes_a_frame_once_for_all_threads_and_drops_old_ones():
    computed = []

    def slow(frame):
        computed.append(frame.number)
        time.sleep(0.05)
        return Image.new("RGB", (frame.number, 1))

    cache, results = Cache(slow, size=2), []
    threads = [threading.Thread(target=lambda: results.append(cache(numbered(1)).width)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results, computed) == ([1] * 4, [1])
    for number in (2, 3, 3, 1):
        cache(numbered(number))
    assert computed == [1, 2, 3, 1]


def test_cache_passes_errors_on():
    def fail(frame):
        raise ValueError(str(frame.number))

    cache = Cache(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            cache(numbered(7))


def test_folder_of_frames_is_a_folder(tmp_path):
    assert isinstance(open_frames(write_frames(tmp_path / "frames")), Folder)
