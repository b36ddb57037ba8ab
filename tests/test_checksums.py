import json
import random
import shutil

import jax
import numpy as np
import pytest
from runs import save_run
from small_networks import SHAPE

from san_jax import devices
from san_jax.errors import UserError
from san_jax.weights import checksums, stored


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return stored.find(save_run(tmp_path_factory.mktemp("run"), mode="san"))


def networks(checkpoint):
    parts, _ = stored.restore_networks(checkpoint, devices.replicated(devices.make_mesh()), draws=True)
    return parts


def test_every_array_of_a_checkpoint_has_a_checksum_under_its_dotted_name(checkpoint):
    parts, found = networks(checkpoint), checksums.read(checkpoint)
    assert checksums.of_arrays(parts).items() <= found.items()
    assert "decoder.embed1.conv.kernel" in found
    assert "step" in found


def test_checksum_is_that_of_the_values_in_order_whatever_the_layout():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert checksums.crc32(array) == checksums.crc32(np.asfortranarray(array))
    assert checksums.crc32(array) != checksums.crc32(array[::-1])
    assert checksums.crc32(np.array(0.0)) == checksums.crc32(np.zeros(8, np.uint8))


def test_array_that_differs_from_its_checksum_is_named(checkpoint, tmp_path):
    damaged = shutil.copytree(checkpoint, tmp_path / "3")
    [path] = [path for path in (damaged / checksums.CHECKSUMS).iterdir() if path.name == "metadata"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"decoder.embed1.conv.kernel": 1}))
    with pytest.raises(UserError, match=r"3 is damaged: the array decoder\.embed1\.conv\.kernel is not what was saved"):
        networks(damaged)


def test_changed_description_is_noticed(checkpoint, tmp_path):
    damaged = shutil.copytree(checkpoint, tmp_path / "3")
    path = damaged / stored.ABOUT / "metadata"
    path.write_text(path.read_text().replace(f'"last_stride": {SHAPE.last_stride}', '"last_stride": 2'))
    with pytest.raises(UserError, match=r"3 is damaged: its description is not what was saved; give another"):
        stored.read_about(damaged)


def test_checkpoint_of_an_older_version_has_no_checksums_and_is_read(checkpoint, tmp_path):
    older = shutil.copytree(checkpoint, tmp_path / "3")
    shutil.rmtree(older / checksums.CHECKSUMS)
    jax.tree.map(np.testing.assert_array_equal, networks(older), networks(checkpoint))


def test_flipped_bits_in_the_arrays_never_go_unnoticed(checkpoint, tmp_path):
    """Flips bits in the largest file of each copy; orbax alone reads some of these as other numbers."""
    rng, noticed = random.Random(0), 0
    right = networks(checkpoint)
    for number in range(10):
        damaged = shutil.copytree(checkpoint, tmp_path / str(number))
        file = max(damaged.rglob("ocdbt*/d/*"), key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        try:
            jax.tree.map(np.testing.assert_array_equal, networks(damaged), right)
        except UserError:
            noticed += 1
    assert noticed > 5
