"""Weights of fast-reid, reid-strong-baseline and layumi's baseline give the features of their code, or an error."""

import functools
from collections import OrderedDict

import golden_reid_codes
import jax
import numpy as np
import pytest
import safetensors.numpy
from torch_saves import as_saved, save_zip

from san_jax.data import augmentation
from san_jax.errors import UserError
from san_jax.weights.loading import load_weights
from san_jax.weights.state_dicts import read_state_dict


@functools.cache
def tensors_of(network: str) -> dict[str, np.ndarray]:
    return golden_reid_codes.state_dict(golden_reid_codes.shapes_of(network))


def write(path, tensors):
    safetensors.numpy.save_file(tensors, path)
    return path


def load(path, **options):
    return load_weights(path, height=golden_reid_codes.HEIGHT, width=golden_reid_codes.WIDTH, **options)


def features(loaded) -> np.ndarray:
    @jax.jit
    def feats(encoder, stats, images):
        return loaded.architecture.feats(encoder, stats, augmentation.normalise(images))

    weights = loaded.weights
    return np.asarray(feats(weights["encoder"], weights["encoder_stats"], golden_reid_codes.pictures()))


def error(ours, theirs) -> float:
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("network", golden_reid_codes.FEATURES)
def test_features_are_those_of_the_original_code(tmp_path, network):
    loaded = load(write(tmp_path / "theirs", tensors_of(network)))
    assert error(features(loaded), golden_reid_codes.features_of(network)) < 1e-5


@pytest.mark.parametrize(
    ("network", "name", "stem", "neck", "fc_dim", "last_stride"),
    [
        ("fastreid", "fast-reid", "fastreid", "bn", 0, 1),
        ("fastreid_reduced", "fast-reid", "fastreid", "bn", 16, 1),
        ("fastreid_no_neck", "fast-reid", "fastreid", "none", 0, 1),
        ("strong", "reid-strong-baseline", "strong_baseline", "bn", 0, 1),
        ("strong_no_neck", "reid-strong-baseline", "strong_baseline", "none", 0, 1),
        ("layumi", "layumi's Person_reID_baseline_pytorch", "torchvision", "bn", 512, 2),
        ("layumi_no_linear", "layumi's Person_reID_baseline_pytorch", "torchvision", "bn", 0, 2),
    ],
)
def test_networks_are_recognised_by_parameter_names_and_the_report_says_so(
    tmp_path, network, name, stem, neck, fc_dim, last_stride
):
    loaded = load(write(tmp_path / "theirs", tensors_of(network)))
    found = loaded.architecture
    assert (found.stem, found.neck, found.fc_dim, found.last_stride) == (stem, neck, fc_dim, last_stride)
    assert (found.num_pids, found.encoder_width, loaded.mode) == (golden_reid_codes.PIDS, 1.0, "baseline")
    assert f"known as  {name}: stem {stem}, neck {neck}, average pool" in loaded.report


def test_unrecognised_stem_changes_the_features(tmp_path):
    """Otherwise the comparison above could not fail."""
    bare = {name.removeprefix("base."): values for name, values in tensors_of("strong").items()}
    loaded = load(write(tmp_path / "bare", bare))
    assert (loaded.architecture.stem, loaded.architecture.neck) == ("torchvision", "bn")
    assert error(features(loaded), golden_reid_codes.features_of("strong")) > 1e-2


@pytest.mark.parametrize("network", ["fastreid_r50", "strong_r50", "layumi_r50"])
def test_state_dicts_of_their_resnet50_are_complete(tmp_path, network):
    shapes = golden_reid_codes.shapes_of(network)
    loaded = load(write(tmp_path / "theirs", {name: np.ones(shape, np.float32) for name, shape in shapes.items()}))
    assert loaded.architecture.depth == 50
    assert f" body {53 + 4 * 53}, " in loaded.report
    assert "fresh" not in loaded.report


@pytest.mark.parametrize(
    ("network", "wrap"),
    [
        ("fastreid", lambda saved: {"model": saved, "iteration": 7}),
        ("fastreid", lambda saved: {"state_dict": with_prefix("module.", saved)}),
        ("fastreid", lambda saved: with_prefix("net.", saved)),
        ("strong", lambda saved: {"model_state_dict": saved, "epoch": 120}),
        ("layumi", lambda saved: {"net": with_prefix("_orig_mod.", saved)}),
        ("layumi", lambda saved: with_prefix("module.", saved) | as_saved({"n_averaged": np.array(5)})),
    ],
)
def test_wrappers_and_prefixes_do_not_matter(tmp_path, network, wrap):
    plain = read_state_dict(write(tmp_path / "plain", tensors_of(network)))
    kept = {name: it for name, it in tensors_of(network).items() if not name.endswith("num_batches_tracked")}
    save_zip(tmp_path / "wrapped.pth", wrap(as_saved(kept)))
    wrapped = read_state_dict(tmp_path / "wrapped.pth")
    assert wrapped.code == plain.code
    assert wrapped.tensors.keys() == plain.tensors.keys()
    for name, values in plain.tensors.items():
        np.testing.assert_array_equal(wrapped.tensors[name], values, err_msg=name)


def with_prefix(prefix, saved):
    return OrderedDict((prefix + name, tensor) for name, tensor in saved.items())


@pytest.mark.parametrize(
    ("network", "leave_out", "zero", "num_pids"),
    [
        ("fastreid", r"heads.weight", None, 1),
        ("strong", "classifier.", None, 1),
        ("strong", "nothing", "classifier.bias", golden_reid_codes.PIDS),
        ("strong", "bottleneck.bias", "bottleneck.bias", golden_reid_codes.PIDS),
        ("layumi", "classifier.classifier.", None, 1),
    ],
)
def test_missing_classifier_and_biases_are_zero(tmp_path, network, leave_out, zero, num_pids):
    kept = {name: values for name, values in tensors_of(network).items() if not name.startswith(leave_out)}
    loaded = load(write(tmp_path / "theirs", kept))
    assert loaded.architecture.num_pids == num_pids
    classifier = loaded.weights["encoder"]["classifier"]
    assert num_pids > 1 or not classifier["kernel"].any()
    assert (zero is None) or f"zero      {'bottleneck.bias, ' * (zero[0] == 'b')}classifier.bias" in loaded.report
    if zero == "bottleneck.bias":
        assert not loaded.weights["encoder"]["fc"]["norm"]["bias"].any()


@pytest.mark.parametrize(
    ("network", "what", "name"),
    [
        ("fastreid_ibn", r"instance-batch normalisation \(IBN\)", r"backbone\.layer1\.0\.bn1\.IN\.bias"),
        ("strong_ibn", r"instance-batch normalisation \(IBN\)", r"base\.layer1\.0\.bn1\.IN\.bias"),
        ("fastreid_non_local", "non-local blocks", r"backbone\.NL_2\.0\."),
        ("fastreid_se", r"squeeze-and-excitation blocks \(SE\)", r"backbone\.layer1\.0\.se\.fc\.0\.weight"),
        ("strong_se", r"squeeze-and-excitation blocks \(SE\)", r"base\.layer1\.0\.se_module\."),
        ("fastreid_gem", r"generalised-mean pooling \(GeM\)", r"heads\.pool_layer\.p"),
        ("layumi_usam", r"attention \(USAM\)", r"usam_1\."),
        ("layumi_pcb", r"a classifier for each part of the body \(PCB\)", r"classifier0\.add_block"),
    ],
)
def test_unsupported_layers_are_refused_by_name(tmp_path, network, what, name):
    shapes = golden_reid_codes.shapes_of(network)
    path = write(tmp_path / "theirs", {key: np.ones(shape, np.float32) for key, shape in shapes.items()})
    with pytest.raises(UserError, match=rf"theirs has {what}, which is not supported \({name}") as refused:
        load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"pixel_mean": 255 * np.array([0.5, 0.5, 0.5])}, r"own pixel_mean \(127\.5, 127\.5, 127\.5\)"),
        ({"backbone.layer1.0.conv2.weight": np.zeros((64, 2, 3, 3))}, r"layer1\.0\.conv2\.weight is \[64, 2, 3, 3\]"),
        ({"teacher.layer1.0.conv1.weight": np.zeros(1)}, r"several ResNets \('backbone\.', 'teacher\.'\)"),
        ({"module.heads.weight": np.zeros(1)}, r"holds heads\.weight twice"),
        ({"heads.more.weight": np.zeros(1)}, r"more\.weight matches nothing of ours"),
        ({"heads.bottleneck.0.weight": np.ones((8, 512, 1, 1))}, r"bottleneck\.0\.bias is \[512\], ours \[8\]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_in_one_line(tmp_path, edit, message):
    path = write(tmp_path / "theirs", tensors_of("fastreid") | {k: v.astype(np.float32) for k, v in edit.items()})
    with pytest.raises(UserError, match=message) as refused:
        load(path)
    assert "\n" not in str(refused.value)


def test_imagenet_pixel_mean_and_std_of_older_fast_reid_files_are_accepted(tmp_path):
    mean, std = (
        255 * np.array(it, np.float32).reshape(1, 3, 1, 1) for it in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    path = write(tmp_path / "theirs", tensors_of("fastreid") | {"pixel_mean": mean, "pixel_std": std})
    assert load(path).architecture.stem == "fastreid"


def test_older_names_of_the_fast_reid_head_are_read(tmp_path):
    older = {
        {"heads.weight": "heads.classifier.weight"}.get(
            name, name.replace("heads.bottleneck.0", "heads.bnneck")
        ): values
        for name, values in tensors_of("fastreid").items()
    }
    old, new = (read_state_dict(write(tmp_path / "theirs", it)).tensors for it in (older, tensors_of("fastreid")))
    assert old.keys() == new.keys()
    np.testing.assert_array_equal(old["classifier.weight"], new["classifier.weight"])
    np.testing.assert_array_equal(old["bottleneck.running_var"], new["bottleneck.running_var"])


def test_last_stride_height_and_width_are_taken_from_the_arguments(tmp_path):
    path = write(tmp_path / "theirs", tensors_of("layumi"))
    found = load_weights(path, height=96, last_stride=1).architecture
    assert (found.height, found.width, found.last_stride) == (96, 128, 1)
    with pytest.raises(UserError, match="height is 4; give 8 pixels or more"):
        load_weights(path, height=4)
    with pytest.raises(UserError, match=r"encoder\.last_stride is 3"):
        load_weights(path, last_stride=3)
