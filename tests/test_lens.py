import jax
import jax.numpy as jnp
import numpy as np

from san_jax.synthesis import lens

HEIGHT, WIDTH = 64, 32
NEUTRAL = lens.Response(jnp.ones(3), jnp.ones(()), *jnp.zeros(5))
respond = jax.jit(lens.respond)


def test_brighter_light_gives_brighter_pictures():
    keys = jax.random.split(jax.random.key(1), 48)
    responses = jax.jit(jax.vmap(lens.random_response))(jax.random.split(jax.random.key(0), 48))
    means = []
    for level in (0.02, 0.1, 0.3):
        light = jnp.full((48, HEIGHT, WIDTH, 3), level)
        pictures = jax.jit(jax.vmap(lens.respond))(responses, keys, light)
        assert pictures.dtype == jnp.uint8
        means.append(np.asarray(pictures).mean(axis=(1, 2, 3)))
    assert np.all(means[0] < means[1])
    assert np.all(means[1] < means[2])
    assert np.std(means[1]) > 10  # cameras differ


def test_neutral_response_keeps_the_light_away_from_edges():
    """The picture stores the square root of linear light."""
    step = jnp.full((HEIGHT, WIDTH, 3), 0.09).at[:, WIDTH // 2 :].set(0.64)
    picture = np.asarray(respond(NEUTRAL, jax.random.key(2), step))
    assert np.all(np.abs(picture[:, : WIDTH // 2 - 3].astype(int) - 76) <= 1)
    assert np.all(np.abs(picture[:, WIDTH // 2 + 3 :].astype(int) - 204) <= 1)


def test_noise_has_the_deviation_of_its_response():
    noisy = NEUTRAL._replace(noise=jnp.float32(0.04))
    light = jnp.full((256, 128, 3), 0.25)
    picture = np.asarray(respond(noisy, jax.random.key(2), light)) / 255
    assert 0.025 < picture[..., 1].std() < 0.055
    assert abs(picture.mean() - 0.5) < 0.01
    again = np.asarray(respond(noisy, jax.random.key(3), light)) / 255
    assert abs(np.corrcoef(picture.ravel(), again.ravel())[0, 1]) < 0.05


def test_photograph_is_cropped_to_the_requested_shape():
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    picture = jnp.asarray(
        np.stack([np.tile(ramp[:200, None], (1, 300)), np.tile(ramp, (200, 1)), np.zeros((200, 300))], -1), jnp.uint8
    )
    cut = jax.jit(jax.vmap(lambda key: lens.photograph(picture, key, height=HEIGHT, width=WIDTH)))
    cuts = np.sqrt(np.asarray(cut(jax.random.split(jax.random.key(0), 16))))
    assert np.all(np.diff(cuts[:, :, 16, 0], axis=1) > 0)  # never upside down
    across = np.diff(cuts[:, 32, :, 1], axis=1)
    mirrored = np.all(across < 0, axis=1)
    assert np.all(mirrored | np.all(across > 0, axis=1))
    assert 2 < mirrored.sum() < 14
    down, aside = np.abs(np.diff(cuts[:, :, 16, 0], axis=1)).mean(1), np.abs(across).mean(1)
    np.testing.assert_allclose(down, aside, rtol=0.05)  # pixels stay square
    assert np.ptp(down) > 0.2 * down.mean()  # of different sizes


def test_blur_fits_the_scale_and_that_of_a_whole_picture_is_its_height():
    blurred = NEUTRAL._replace(blur=jnp.float32(1.5))
    step = jnp.full((HEIGHT, WIDTH, 3), 0.09).at[:, WIDTH // 2 :].set(0.64)
    scales = (None, jnp.float32(HEIGHT), jnp.float32(4 * HEIGHT))
    default, same, larger = (np.asarray(respond(blurred, jax.random.key(4), step, scale=scale)) for scale in scales)
    np.testing.assert_array_equal(default, same)
    steepest = [np.abs(np.diff(picture[HEIGHT // 2, :, 1].astype(int))).max() for picture in (same, larger)]
    assert steepest[1] < 0.7 * steepest[0]
