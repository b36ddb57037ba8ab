import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import wardrobe

PEOPLE = 500
dress_all = jax.jit(jax.vmap(wardrobe.random_outfit))


def keys(seed):
    return jax.random.split(jax.random.key(seed), PEOPLE)


@pytest.fixture(scope="module")
def outfits():
    return dress_all(keys(0), keys(1))


def test_measures_of_outfits_are_in_their_ranges(outfits):
    limits = dict(hair_length=(0, 1), hair_volume=(0.005, 0.03), flare=(1, 1.65), sleeve_width=(1, 1.35),
                  leg_width=(1, 1.35), trunk_width=(1, 1.2), bag=(0, 3))
    for name, (low, high) in limits.items():
        values = np.asarray(getattr(outfits, name))
        assert ((low <= values) & (values <= high)).all(), name
    skirts = np.asarray(outfits.skirt)
    assert ((skirts == 0) | ((skirts > 0.45) & (skirts < 1.85))).all()
    assert (skirts > 0).any()
    assert not skirts.all()
    assert 0.4 < np.mean(outfits.female) < 0.56


def test_details_do_not_change_garments_and_colours(outfits):
    others = dress_all(keys(0), keys(2))
    details = {"phase", "period", "pattern", "face", "print", "seed"}
    for name in set(wardrobe.Outfit._fields) - details:
        one, other = getattr(outfits, name), getattr(others, name)
        if isinstance(one, wardrobe.Cloth):
            one, other = (cloth._replace(**dict.fromkeys(details & set(cloth._fields))) for cloth in (one, other))
        jax.tree.map(np.testing.assert_array_equal, one, other)
    apart = outfits.top.pattern != others.top.pattern
    plain = np.asarray(outfits.top.pattern == wardrobe.PLAIN)
    assert np.mean(apart[~plain]) > 0.6
    assert not np.any(apart[plain])


def test_patterns_have_two_distinguishable_colours(outfits):
    for cloth in (outfits.top, outfits.trousers, outfits.skirt_cloth):
        seen = np.asarray(cloth.pattern) != wardrobe.PLAIN
        assert np.any(seen)
        assert np.abs(cloth.ground - cloth.figure).max(-1)[seen].min() > 0.2


def test_only_women_wear_skirts_and_nobody_wears_socks_with_tights(outfits):
    bare = np.asarray(outfits.leg_width == 1) & np.asarray(outfits.skirt > 0)
    assert not np.any(bare & ~np.asarray(outfits.female))
    tights = bare & np.asarray(outfits.leg_length == 2)
    assert np.any(tights)
    assert np.all(np.asarray(outfits.sock_height)[tights] == 0)


def test_either_returns_one_tree_or_the_other():
    one, other = (dict(a=jnp.full(3, value), b=jnp.int32(value)) for value in (1, 2))
    for condition, chosen in ((True, one), (False, other)):
        jax.tree.map(np.testing.assert_array_equal, wardrobe.either(jnp.array(condition), one, other), chosen)
