import dataclasses
import gc
import resource
from pathlib import Path

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from absl import flags
from flax import nnx
from runs import save_run
from torch_saves import Call, Global, as_saved, save_stream, save_zip
from torch_states import SMALL, assert_same, save, state_of, torch_tensors

import san_jax
from san_jax import devices
from san_jax.commands.import_ import import_file
from san_jax.errors import UserError
from san_jax.networks.encoder import Encoder
from san_jax.training import checkpoints
from san_jax.training.starting_weights import start_from
from san_jax.weights import stored, torch_names
from san_jax.weights.loading import architecture_of, load_weights
from san_jax.weights.state_dicts import StateDict

ENCODER = torch_names.encoder_names(depth=SMALL.depth, fc_dim=SMALL.fc_dim)


def torchvision_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """Shapes of torchvision's ResNet state dict, derived independently from its names and the paper's table."""
    num_blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    widen = 1 if depth < 50 else 4
    shapes = {}

    def add(conv: str, norm: str, out: int, channels: int, size: int):
        shapes[f"{conv}.weight"] = (out, channels, size, size)
        shapes.update({f"{norm}.{leaf}": (out,) for leaf in ("weight", "bias", "running_mean", "running_var")})

    add("conv1", "bn1", 64, 3, 7)
    before = 64
    for layer, count in enumerate(num_blocks, 1):
        channels = 64 * 2 ** (layer - 1)
        sides = [(channels, 3), (channels, 3)] if widen == 1 else [(channels, 1), (channels, 3), (4 * channels, 1)]
        for block in range(count):
            name, now = f"layer{layer}.{block}", before
            for i, (out, size) in enumerate(sides, 1):
                add(f"{name}.conv{i}", f"{name}.bn{i}", out, now, size)
                now = out
            if before != now:
                add(f"{name}.downsample.0", f"{name}.downsample.1", now, before, 1)
            before = now
    return shapes | {"fc.weight": (1000, before), "fc.bias": (1000,)}


def write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    safetensors.numpy.save_file(tensors, path)
    return path


def split(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The tensors of the encoder and those of the decoder."""
    parts = ({}, {})
    for name, values in tensors.items():
        parts[name not in ENCODER][name] = values
    return parts


def encoder_of(workdir: Path) -> tuple:
    checkpoint = stored.find(workdir)
    weights, _ = stored.restore_networks(checkpoint, devices.replicated(devices.make_mesh()), draws=False)
    return stored.read_architecture(checkpoint), weights["encoder"], weights["encoder_stats"]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_names_and_shapes_agree_with_torchvision_at_every_depth(depth):
    theirs = torchvision_shapes(depth)
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in theirs.items()}
    found = architecture_of(StateDict(tensors), source="file")
    assert (found.depth, found.encoder_width, found.fc_dim, found.last_stride) == (depth, 1.0, 0, 2)
    model = nnx.eval_shape(lambda: Encoder(depth=depth, fc_dim=0, num_pids=1, rngs=nnx.Rngs(0)))
    shapes = {path: leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))}
    ours = {
        name: torch_names.torch_shape(shapes[entry.path], entry.layout)
        for name, entry in torch_names.encoder_names(depth=depth, fc_dim=0).items()
    }
    assert {name: theirs[name] for name in theirs if not name.startswith("fc.")} == {
        name: shape for name, shape in ours.items() if not name.startswith("classifier.")
    }


def test_resnet18_of_full_size_becomes_a_checkpoint(tmp_path, capsys):
    rng = np.random.default_rng(0)
    tensors = {name: rng.random(shape, np.float32) for name, shape in torchvision_shapes(18).items()}
    path, out = write(tmp_path / "resnet18.safetensors", tensors), tmp_path / "out"
    import_file(path, out, last_stride=None, height=256, width=128)
    architecture, encoder, stats = encoder_of(out)
    assert architecture == dataclasses.replace(
        SMALL,
        depth=18,
        fc_dim=0,
        last_stride=2,
        encoder_width=1.0,
        decoder_width=1.0,
        num_pids=1,
        height=256,
        width=128,
    )
    kernel = tensors["layer3.0.downsample.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(encoder["stage3"][0]["shortcut"]["conv"]["kernel"], kernel)
    np.testing.assert_array_equal(stats["stem"]["norm"]["var"], tensors["bn1.running_var"])
    assert capsys.readouterr().out == (
        f"weights of {path}\n"
        "  taken     100 tensors: body 100\n"
        "  left out  fc.bias, fc.weight (ImageNet's classifier)\n"
        "  fresh     classifier\n"
        f"{out}: input 256 x 128 pixels (--height, --width), last stride 2 (--last_stride)\n"
    )


@pytest.mark.parametrize("save_file", [save_zip, save_stream])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoint_of_the_authors_fills_encoder_and_decoder(tmp_path, save_file, prefix):
    encoder, decoder = (as_saved(part, prefix) for part in split(torch_tensors(seed=1)))
    path = tmp_path / "checkpoint_ep300.pth.tar"
    save_file(path, {"state_dict": encoder, "decoder_state_dict": decoder, "rank1": 0.8, "epoch": 300})
    assert_same(start_from(path, state_of(seed=2), architecture=SMALL), state_of(seed=1))


def test_checkpoint_of_the_authors_is_converted_to_one_of_ours(tmp_path):
    encoder, decoder = (as_saved(part) for part in split(torch_tensors(seed=1)))
    save_zip(tmp_path / "theirs", {"state_dict": encoder, "decoder_state_dict": decoder})
    import_file(tmp_path / "theirs", tmp_path / "ours", last_stride=None, height=64, width=32)
    assert stored.read_architecture(stored.find(tmp_path / "ours")) == SMALL
    assert_same(start_from(tmp_path / "ours", state_of(seed=2), architecture=SMALL), state_of(seed=1))


@pytest.mark.parametrize("options", [{"min_channels": 3}, {"coarse": 5}, {"decoder_width": 0.0, "coarse": 5}])
def test_options_of_a_decoder_are_known_by_its_tensors(tmp_path, options):
    shape = dataclasses.replace(SMALL, **({"decoder_width": 1 / 32} | options))
    encoder, decoder = (as_saved(part) for part in split(torch_tensors(shape, seed=1)))
    save_zip(tmp_path / "theirs", {"state_dict": encoder, "decoder_state_dict": decoder})
    import_file(tmp_path / "theirs", tmp_path / "ours", last_stride=None, height=64, width=32)
    assert stored.read_architecture(stored.find(tmp_path / "ours")) == shape
    assert_same(start_from(tmp_path / "ours", state_of(shape, seed=2), architecture=shape), state_of(shape, seed=1))


@pytest.mark.parametrize("bare", [False, True])
def test_hugging_face_names_give_the_same_weights(tmp_path, bare):
    body = {name: values for name, values in split(torch_tensors(seed=1))[0].items() if not name.startswith("c")}
    body |= {"conv1.weight": torch_tensors(seed=1)["conv1.weight"]}
    body = {name: values for name, values in body.items() if not name.startswith("fc")}
    theirs = {ours: name for name, ours in torch_names.hugging_face_names(depth=SMALL.depth).items()}
    renamed = {("" if bare else "resnet.") + theirs[name]: values for name, values in body.items()}
    if not bare:
        renamed |= {
            "classifier.1.weight": np.zeros((10, 64), np.float32),
            "classifier.1.bias": np.zeros(10, np.float32),
        }
    plain = start_from(write(tmp_path / "plain", body), state_of(seed=2), architecture=SMALL)
    assert_same(start_from(write(tmp_path / "renamed", renamed), state_of(seed=2), architecture=SMALL), plain)
    np.testing.assert_array_equal(
        plain.encoder["stage4"][0]["conv2"]["kernel"], state_of(seed=1).encoder["stage4"][0]["conv2"]["kernel"]
    )


@pytest.mark.parametrize("path", ["", "checkpoints", "checkpoints/7"])
def test_start_from_a_run_has_fresh_step_and_optimizers(tmp_path, path):
    used = jax.tree.map(lambda leaf: leaf + 1, state_of(seed=1))
    save(tmp_path, dataclasses.replace(state_of(seed=1), step=used.step, reid_opt=used.reid_opt))
    assert_same(start_from(tmp_path / path, state_of(seed=2), architecture=SMALL), state_of(seed=1))


def test_generator_with_another_decoder_is_refused_for_its_decoder_not_for_the_layers_it_has_not_trained(tmp_path):
    other = dataclasses.replace(SMALL, coarse=5)
    save(tmp_path, state_of(other, mode="san_pg", seed=1), other)
    with pytest.raises(UserError, match=r"; decoder\.coarse is 0, but 5 in the weights"):
        start_from(tmp_path, state_of(seed=2), architecture=SMALL)


def test_misspelt_name_of_weights_in_the_package_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"there is no rendered_small-pg; did you mean rendered-small-pg, which"):
        start_from(Path("rendered_small-pg"), state_of(), architecture=SMALL)


DRAWS_COARSELY = dataclasses.replace(SMALL, decoder_width=0.0, coarse=5)


def test_coarse_drawing_of_a_generator_without_convolutions_is_taken_and_the_convolutions_stay_fresh(tmp_path, capsys):
    save(tmp_path, state_of(DRAWS_COARSELY, mode="san_pg", seed=1), DRAWS_COARSELY)
    both = dataclasses.replace(SMALL, coarse=5)
    fresh, state = state_of(both, seed=2), start_from(tmp_path, state_of(both, seed=2), architecture=both)
    assert_same(state.decoder.pop("coarse"), state_of(DRAWS_COARSELY, mode="san_pg", seed=1).decoder["coarse"])
    assert_same(state.decoder, {name: fresh.decoder[name] for name in state.decoder})
    assert capsys.readouterr().out.endswith("\n  fresh     fc, classifier, decoder\n")


def test_convolutions_are_not_taken_without_the_coarse_drawing_beside_which_they_were_trained(tmp_path):
    both = dataclasses.replace(SMALL, coarse=5)
    path = write(tmp_path / "theirs", torch_tensors(SMALL))
    with pytest.raises(UserError, match=r"coarse\.0\.weight is missing.*decoder\.coarse is 5, but 0 in the weights"):
        start_from(path, state_of(both), architecture=both)
    path = write(tmp_path / "theirs", torch_tensors(both))
    with pytest.raises(UserError, match=r"; decoder\.width is 0, but the weights have convolutions"):
        start_from(path, state_of(DRAWS_COARSELY), architecture=DRAWS_COARSELY)


@pytest.mark.parametrize("architecture", [DRAWS_COARSELY, dataclasses.replace(SMALL, coarse=5)])
def test_coarse_drawing_is_left_out_by_a_run_without_a_decoder(tmp_path, capsys, architecture):
    path = write(tmp_path / "pg", torch_tensors(architecture, seed=1))
    state = start_from(path, state_of(mode="baseline", seed=2), architecture=SMALL)
    assert_same(state, state_of(mode="baseline", seed=1))
    assert "(no decoder here)\n" in capsys.readouterr().out


def test_last_layer_that_is_no_convolution_is_refused(tmp_path):
    tensors = torch_tensors() | {"final_layer.1.weight": np.zeros(3, np.float32)}
    with pytest.raises(UserError, match=r"final_layer\.1\.weight is \[3\]"):
        load_weights(write(tmp_path / "theirs", tensors))


def test_start_from_a_texture_generator_takes_only_body_and_decoder(tmp_path, capsys):
    """Its fc and classifier are untrained: SAN keeps its own, though they have the same shapes."""
    save(tmp_path, state_of(mode="san_pg", seed=1))
    fresh, state = state_of(seed=2), start_from(tmp_path, state_of(seed=2), architecture=SMALL)
    for name in ("fc", "classifier"):
        assert_same(state.encoder.pop(name), fresh.encoder[name])
    assert_same(state.encoder_stats.pop("fc"), fresh.encoder_stats["fc"])
    trained = state_of(seed=1)
    for name in ("encoder", "encoder_stats"):
        assert_same(getattr(state, name), {part: getattr(trained, name)[part] for part in getattr(state, name)})
    assert {"stem", "stage1", "stage2", "stage3", "stage4"} == set(state.encoder)
    assert_same((state.decoder, state.decoder_stats), (trained.decoder, trained.decoder_stats))
    assert capsys.readouterr().out.endswith("\n  fresh     fc, classifier\n")


def test_half_precision_becomes_float32(tmp_path):
    tensors = {name: values.astype(jnp.bfloat16) for name, values in torch_tensors(seed=1).items()}
    state = start_from(write(tmp_path / "half", tensors), state_of(seed=2), architecture=SMALL)
    assert state.encoder["classifier"]["kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(
        state.encoder["classifier"]["kernel"], tensors["classifier.weight"].T.astype(np.float32)
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"num_pids": 9}, "classifier.weight is [5, 8], ours [9, 8]; classifier.bias is [5], ours [9]"),
        # The number of pids is the same, but a bias without its weight is meaningless.
        ({"fc_dim": 0}, "classifier.weight is [5, 64], ours [5, 8]"),
    ],
)
def test_classifier_of_another_shape_stays_fresh_as_a_whole(tmp_path, capsys, change, line):
    theirs, ours = SMALL, dataclasses.replace(SMALL, **change)
    if "fc_dim" in change:
        theirs, ours = ours, theirs
    path = write(tmp_path / "theirs", torch_tensors(theirs, seed=1))
    fresh, state = state_of(ours, seed=2), start_from(path, state_of(ours, seed=2), architecture=ours)
    assert_same(state.encoder["classifier"], fresh.encoder["classifier"])
    assert_same(state.decoder, state_of(seed=1).decoder)
    printed = capsys.readouterr().out
    assert f"\n  no fit    {line}\n  fresh     " in printed
    assert printed.endswith("classifier\n")


def test_decoder_is_left_out_by_a_run_without_one(tmp_path, capsys):
    path = write(tmp_path / "san", torch_tensors(seed=1))
    state = start_from(path, state_of(mode="baseline", seed=2), architecture=SMALL)
    assert_same(state, state_of(mode="baseline", seed=1))
    assert "(no decoder here)\n" in capsys.readouterr().out


def test_decoder_that_the_file_lacks_stays_fresh(tmp_path, capsys):
    path = write(tmp_path / "baseline", torch_tensors(mode="baseline", seed=1))
    state = start_from(path, state_of(seed=2), architecture=SMALL)
    assert_same(state.encoder, state_of(seed=1).encoder)
    assert_same(state.decoder, state_of(seed=2).decoder)
    assert capsys.readouterr().out.endswith("\n  fresh     decoder\n")


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (
            {"depth": 10},
            r"layer1\.0\.conv1\.weight is \[2, 2, 3, 3\], ours \[2, 2, 1, 1\] .*encoder.depth is 14, but 10 in the",
        ),
        ({"depth": 26}, r"layer1\.1\.bn1\.bias matches nothing of ours .*encoder.depth is 14, but 26 in the weights"),
        ({"encoder_width": 1 / 16}, r"conv1\.weight is \[4, 3, 7, 7\], ours \[2, 3, 7, 7\]"),
        ({"fc_dim": 4}, r"fc\.0\.weight is \[4, 64\], ours \[8, 64\]"),
        ({"skips": False}, r"embed_layer3\.0\.weight is missing"),
        ({"coarse": 5}, r"coarse\.0\.weight .*; decoder\.coarse is 0, but 5 in the weights"),
        (
            {"min_channels": 3},
            r"; decoder\.width and decoder\.min_channels give \[8, 4, 1, 1, 1\] channels, "
            r"but there are \[8, 4, 3, 3, 3\] in the weights",
        ),
    ],
)
def test_error_for_another_network_names_its_first_tensor_that_differs(tmp_path, theirs, message):
    path = write(tmp_path / "theirs", torch_tensors(dataclasses.replace(SMALL, **theirs)))
    with pytest.raises(UserError, match=message):
        start_from(path, state_of(), architecture=SMALL)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors | {"layer1.0.gate.weight": np.zeros(2, np.float32)}, r"layer1\.0\.gate\.weight match"),
        (lambda tensors: tensors | {"bn1.bias": np.zeros(2, np.int8)}, "'bn1.bias' among its weights, of type int8"),
        (lambda tensors: {name: tensors[name] for name in tensors if name != "bn1.bias"}, r"bn1\.bias is missing"),
        (lambda _: {"fc.weight": np.zeros((10, 64), np.float32)}, "none of its tensors is used here"),
        (lambda _: {}, "none of its tensors is used here"),
    ],
)
def test_file_with_unknown_missing_or_unusable_tensors_is_refused(tmp_path, edit, message):
    path = write(tmp_path / "theirs", edit(torch_tensors()))
    with pytest.raises(UserError, match=message):
        start_from(path, state_of(), architecture=SMALL)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([1, 2], "a list where a state_dict should be"),
        ({"state_dict": 3}, "a int where a state_dict should be"),
        ({"epoch": 3, "weights": {}}, "'epoch' among its weights, of type int"),
    ],
)
def test_checkpoint_without_state_dict_is_refused(tmp_path, saved, message):
    save_zip(tmp_path / "theirs", saved)
    with pytest.raises(UserError, match=message):
        start_from(tmp_path / "theirs", state_of(), architecture=SMALL)


def test_network_that_is_no_resnet_makes_no_checkpoint(tmp_path):
    path = write(tmp_path / "vit", {"vit.embeddings.cls_token": np.zeros((1, 1, 8), np.float32)})
    with pytest.raises(UserError, match=r"no ResNet of depth 10, .* holds vit\.embeddings\.cls_token$"):
        import_file(path, tmp_path / "out", last_stride=None, height=256, width=128)
    assert not (tmp_path / "out").exists()


def test_non_empty_folder_is_refused_and_unchanged(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path} exists already"):
        import_file(tmp_path / "notes", tmp_path, last_stride=None, height=256, width=128)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize(("name", "reason"), [("w\udcff", "is no UTF-8"), (300 * "x", "File name too long")])
def test_folder_that_cannot_exist_is_refused_in_one_line(name, reason, tmp_path):
    san_jax.load(save_run(tmp_path / "run", mode="baseline")).save(tmp_path / "file.safetensors")
    with pytest.raises(UserError, match=reason):
        import_file(tmp_path / "file.safetensors", tmp_path / name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file.safetensors", "run"]


def test_malicious_file_is_refused_in_one_line_and_runs_nothing(tmp_path):
    path = tmp_path / "hostile.pth"
    save_zip(path, {"state_dict": Call(Global("os", "system"), (f"touch {tmp_path}/ran",))})
    status, output, errors = commands.run("-m", "san_jax.commands.import_", path, tmp_path / "out", "--height=64")
    assert (status, output) == (1, "")
    assert errors.startswith(f"error: {path} holds os.system, ")
    assert errors.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["hostile.pth"]


def test_importing_the_command_as_a_module_defines_no_flags():
    assert not {"last_stride", "height", "width", "best"} & set(flags.FLAGS)


@pytest.mark.parametrize(
    ("name", "value", "dtype", "message"),
    [
        ("layer2.0.conv1.weight", np.nan, np.float32, r"NaN or infinite numbers in layer2\.0\.conv1\.weight"),
        ("bn1.running_mean", np.inf, np.float32, r"NaN or infinite numbers in bn1\.running_mean"),
        ("classifier.bias", -np.inf, np.float16, r"NaN or infinite numbers in classifier\.bias"),
        ("up1.conv.2.bias", 1e300, np.float64, r"NaN or infinite numbers in up1\.conv\.2\.bias"),
        ("bn1.running_var", -0.1, np.float32, r"a negative variance in bn1\.running_var"),
    ],
)
def test_non_finite_number_or_negative_variance_is_refused_with_the_tensor_name(tmp_path, name, value, dtype, message):
    tensors = torch_tensors()
    tensors[name] = tensors[name].astype(dtype)
    tensors[name].flat[1] = value
    path = write(tmp_path / "theirs", tensors)
    with pytest.raises(UserError, match=message) as refused:
        import_file(path, tmp_path / "out")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=message):
        start_from(path, state_of(), architecture=SMALL)
    assert not (tmp_path / "out").exists()


def test_run_with_non_finite_weights_is_refused_as_a_start(tmp_path):
    state = state_of(seed=1)
    state.encoder["classifier"]["bias"] = state.encoder["classifier"]["bias"].at[2].set(jnp.nan)
    save(tmp_path / "run", state)
    with pytest.raises(UserError, match=r"checkpoints/7 holds NaN or infinite numbers in encoder\.classifier\.bias"):
        start_from(tmp_path / "run", state_of(), architecture=SMALL)


def files_under(folder: Path) -> list[str]:
    return sorted(str(entry.relative_to(folder)) for entry in folder.rglob("*"))


@pytest.mark.filterwarnings("ignore")  # what orbax's threads leave behind when a write fails
@pytest.mark.parametrize("there", [False, True])
def test_import_onto_a_full_disk_leaves_nothing_and_can_be_repeated(tmp_path, there):
    """A limit on the size of files simulates the full disk: writing fails half-way, in orbax's threads."""
    path, out = write(tmp_path / "theirs", torch_tensors()), tmp_path / "deep" / "out"
    if there:
        out.mkdir(parents=True)
    before = files_under(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(UserError, match=f"cannot write {out} .*; free some space or give another") as refused:
            import_file(path, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        gc.collect()  # the failed writes raise their warnings now, and not in another test
    assert "\n" not in str(refused.value)
    assert files_under(tmp_path) == before
    import_file(path, out, height=64, width=32)
    assert sorted(entry.name for entry in out.iterdir()) == ["checkpoints"]
    assert_same(start_from(out, state_of(seed=2), architecture=SMALL), state_of())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_interrupted_import_leaves_nothing(tmp_path, monkeypatch, moment):
    path, out = write(tmp_path / "theirs", torch_tensors()), tmp_path / "out"
    save_state = checkpoints.Checkpoints.save

    def interrupted(self, *arguments):
        if moment == "after":
            save_state(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoints, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_file(path, out)
    assert files_under(tmp_path) == ["theirs"]


def test_import_replaces_the_remains_of_a_killed_one(tmp_path):
    (tmp_path / "out" / ".importing" / "checkpoints").mkdir(parents=True)
    import_file(write(tmp_path / "theirs", torch_tensors()), tmp_path / "out")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["checkpoints"]


@pytest.mark.parametrize("theirs", ["fastreid", "strong_baseline"])
def test_error_for_weights_of_another_stem_names_the_field(tmp_path, theirs):
    shape = dataclasses.replace(SMALL, stem=theirs)
    prefix = {"fastreid": "backbone.", "strong_baseline": "base."}[theirs]
    body = {name: it for name, it in torch_tensors(seed=1).items() if name.startswith(("conv1.", "bn1.", "layer"))}
    path = write(tmp_path / "theirs", {prefix + name: it for name, it in body.items()})
    with pytest.raises(UserError, match=f"another stem; set encoder.stem, which is torchvision, to {theirs}"):
        start_from(path, state_of(), architecture=SMALL)
    state = start_from(path, state_of(shape, seed=2), architecture=shape)
    assert_same(state.encoder["stem"], state_of(seed=1).encoder["stem"])
    bare = start_from(write(tmp_path / "imagenet", body), state_of(shape, seed=2), architecture=shape)
    assert_same(bare.encoder["stem"], state.encoder["stem"])


def test_neck_is_left_out_by_a_network_without_one_and_loaded_by_a_network_with_one(tmp_path, capsys):
    necked = dataclasses.replace(SMALL, neck="bn", fc_dim=0)
    path = write(tmp_path / "theirs", torch_tensors(necked, seed=1))
    bare = dataclasses.replace(SMALL, fc_dim=0)
    assert_same(start_from(path, state_of(bare, seed=2), architecture=bare), state_of(bare, seed=1))
    assert "(no neck here)" in capsys.readouterr().out
    assert_same(start_from(path, state_of(necked, seed=2), architecture=necked), state_of(necked, seed=1))
    with pytest.raises(UserError, match=r"matches nothing of ours .*; encoder\.fc_dim is 8, but 0 in the weights"):
        start_from(
            path, state_of(dataclasses.replace(SMALL, neck="bn")), architecture=dataclasses.replace(SMALL, neck="bn")
        )
