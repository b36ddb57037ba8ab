import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from san_jax.errors import UserError
from san_jax.scoring.verification import FPRS, tpr_at_fpr


def people(num_query=40, num_gallery=300, num_people=12, spread=1.2, seed=0):
    """Feats around one centre per identity, with pids and camids."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_people, 8))
    pids = [rng.integers(0, num_people, count) for count in (num_query, num_gallery)]
    feats = [(centres[pid] + spread * rng.normal(size=(len(pid), 8))).astype(np.float32) for pid in pids]
    camids = [rng.integers(0, 3, count) for count in (num_query, num_gallery)]
    labels = dict(query_pids=pids[0], gallery_pids=pids[1], query_camids=camids[0], gallery_camids=camids[1])
    return feats, labels


def pairs(feats, labels, distance="euclidean"):
    """Distances of all pairs that count, in float64: those of two identities and those of one."""
    query, gallery = (x.astype(np.float64) for x in feats)
    if distance == "cosine":
        query, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery))
        distmat = 1 - query @ gallery.T
    else:
        distmat = np.square(query[:, None] - gallery[None]).sum(axis=2)
    same = labels["query_pids"][:, None] == labels["gallery_pids"][None]
    counts = ~(same & (labels["query_camids"][:, None] == labels["gallery_camids"][None]))
    return distmat[~same], distmat[same & counts]


def exact(strangers, one_person, fpr):
    """Fraction of the pairs of one identity below the first pair of two identities that exceeds the FPR."""
    return np.mean(one_person < np.sort(strangers)[int(fpr * len(strangers))])


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_tpr_is_that_of_sorted_distances(distance):
    feats, labels = people()
    found = tpr_at_fpr(*feats, **labels, distance=distance)
    strangers, one_person = pairs(feats, labels, distance)
    assert [accepted.fpr for accepted in found] == list(FPRS)
    for accepted in found:
        truth = exact(strangers, one_person, accepted.fpr)
        assert accepted.tpr <= truth + 1e-9
        assert truth <= accepted.tpr + accepted.error + 1e-9
        assert accepted.error <= 0.005
        assert np.mean(strangers < accepted.threshold) <= accepted.fpr + 1e-9
    assert found[0].tpr > found[1].tpr > found[2].tpr


@pytest.mark.parametrize("tile", [1, 7, 40])
def test_tiles_and_devices_do_not_change_the_result(tile):
    feats, labels = people(num_gallery=301)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    once = tpr_at_fpr(*feats, **labels)
    for cut in (dict(tile=tile), dict(mesh=mesh)):
        for one, other in zip(once, tpr_at_fpr(*feats, **labels, **cut), strict=True):
            assert one.tpr == pytest.approx(other.tpr, abs=one.error + 1e-9)


def test_bins_are_fine_whatever_the_scale_of_the_features():
    feats, labels = people()
    tprs = [accepted.tpr for accepted in tpr_at_fpr(*feats, **labels)]
    for scale in (1e-3, 1.0, 1e3):
        found = tpr_at_fpr(*(scale * x.astype(np.float32) for x in feats), **labels)
        strangers, _ = pairs(feats, labels)
        assert all(accepted.bin_width < 1e-3 * scale**2 * strangers.mean() for accepted in found)
        assert [accepted.tpr for accepted in found] == pytest.approx(tprs, abs=0.005)


def test_well_separated_identities_have_tpr_one_and_equal_features_zero():
    feats, labels = people(spread=0.01)
    assert [accepted.tpr for accepted in tpr_at_fpr(*feats, **labels)] == [1.0, 1.0, 1.0]
    same = [np.ones_like(x) for x in feats]
    assert [accepted.tpr for accepted in tpr_at_fpr(*same, **labels)] == [0.0, 0.0, 0.0]


def test_sets_without_pairs_of_one_or_of_two_identities_are_refused():
    feats, labels = people()
    alone = labels | {"gallery_pids": labels["gallery_pids"] + 100}
    with pytest.raises(UserError, match="there is no pair of one person under two cameras among query"):
        tpr_at_fpr(*feats, **alone)
    together = {name: np.zeros_like(x) if "pids" in name else x for name, x in labels.items()}
    with pytest.raises(UserError, match="there is no pair of two identities"):
        tpr_at_fpr(*feats, **together)


def test_distances_an_ulp_below_an_edge_of_the_first_pass_are_counted_in_the_second():
    farthest, tried = np.float32(2.0236433), 0
    edges = np.linspace(0, float(np.sqrt(farthest * farthest)) ** 2, 1025).astype(np.float32)
    for edge in edges[3:200]:
        below = np.nextafter(edge, np.float32(0))
        near = np.sqrt(below)
        if near * near != below:
            continue
        tried += 1
        gallery = np.repeat([0.1 * near, near, farthest], [50, 30, 70]).astype(np.float32)[:, None]
        labels = dict(query_pids=np.array([1]), gallery_pids=np.repeat([1, 2], [50, 100]))
        labels |= dict(query_camids=np.array([0]), gallery_camids=np.ones(150, int))
        [found] = tpr_at_fpr(np.zeros((1, 1), np.float32), gallery, **labels, fprs=[0.2])
        assert (found.tpr, found.error) == (1, 0), edge
    assert tried > 20
