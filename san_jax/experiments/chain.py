"""All stages of SAN by one command: texture generator, pseudo textures, SAN, baseline, comparison (see `make demo`).

    python -m san_jax.experiments.chain --config=configs/chain.py:small --workdir=runs/chain

writes into the workdir:

    san_pg/ san/ baseline/    runs, as train.py writes them; no san_pg/ if a trained generator is given
    data/                     the prepared data sets
    release/                  links to the contents of manual_dir, and the generated textures
    textures.png              some of these textures; textures_2.png of a second training set
    generator.png/.json       textures that the generator draws for held-out pairs, and the true ones; their scores
    drawn.png/.json           the same with those that SAN draws at its end
    scores.json ranked.png    the results of comparison.py

Every stage can be killed; the same command resumes it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from absl import flags
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

import tfds_builders
from san_jax import files
from san_jax import model as models
from san_jax.commands import common, config_file
from san_jax.drawing import contact_sheet
from san_jax.errors import UserError
from san_jax.experiments import comparison
from san_jax.gallery import pseudo_textures
from san_jax.gallery.pseudo_textures import Pictures
from san_jax.model import Model
from san_jax.scoring import texture_scores
from san_jax.training import config_fields
from tfds_builders import DrawnTextures


def run_chain(config: ConfigDict, workdir: Path) -> None:
    """Runs all stages.

    Args:
      config: a config like that of configs/chain.py; `data.data_dir` and `data.manual_dir` of its parts are replaced by
        folders of the workdir.
      workdir: folder for everything that the chain writes.

    Raises:
      UserError: a stage fails, or no training set of `san` needs generated textures.
    """
    san, generator, _ = prepare(config, workdir, total=5)
    baseline = ConfigDict(san.to_dict())
    baseline.mode, baseline.batch.pit_pictures = "baseline", 0
    stage(3, 5, "SAN with these textures", workdir / "san")
    common.train(san, workdir / "san")
    stage(4, 5, "baseline", workdir / "baseline")
    common.train(baseline, workdir / "baseline")
    stage(5, 5, "comparison", workdir)
    comparison.main(workdir)
    drawing = {"generator": generator, "SAN": models.load(workdir / "san")}
    draw_held_out(drawing, with_data_of(workdir, config.san_pg).data, workdir / "drawn.png")


def prepare(config: ConfigDict, workdir: Path, *, total: int) -> tuple[ConfigDict, Model, str]:
    """Runs the first two stages: trains or loads the generator, and generates the textures of SAN's training sets.

    Args:
      config: as in `run_chain`.
      workdir: as in `run_chain`.
      total: number of stages, for display.

    Returns:
      SAN's config with the data folders of the workdir; the generator; and the names, separated by commas, of the sets
      with the pictures for which textures were generated.

    Raises:
      UserError: a stage fails, or no training set of `san` needs generated textures.
    """
    check_parts(config)
    san, san_pg = (with_data_of(workdir, one) for one in (config.san, config.san_pg))
    names = common.names(san.data.train, field="san.data.train")
    generated = [found for name in names if (found := tfds_builders.drawn_textures(name))]
    if not generated:
        raise UserError(
            f"san.data.train {', '.join(names)} needs no generated textures; choose a set that does, such as "
            "synthetic_reid/small_pseudo or cuhk03/labeled_texture, or train on it with train.py"
        )
    given = config.get("generator", "")
    generator = models.load(given) if given else None
    if generator is not None:
        generator.check_draws()  # before anything is written
    release = workdir / "release"
    if jax.process_index() == 0:
        link_release(config.manual_dir, release, own=[textures.folder for textures in generated])
    multihost_utils.sync_global_devices("release")
    stage(1, total, "texture generator", given or workdir / "san_pg")
    if generator is None:
        common.train(san_pg, workdir / "san_pg")
        generator = models.load(workdir / "san_pg", best=True)
    draw_held_out({"generator": generator}, san_pg.data, workdir / "generator.png")
    stage(2, total, "textures", release)
    for number, textures in enumerate(generated, 1):
        sheet = workdir / ("textures.png" if number == 1 else f"textures_{number}.png")
        write_training_textures(generator, textures, sheet=sheet, data=san.data)
    return san, generator, ",".join(textures.pictures for textures in generated)


def check_parts(config: ConfigDict) -> None:
    """Raises a UserError if SAN's config or the generator's is missing, or has a value that is not allowed."""
    parts = {part: config.get(part) for part in ("san", "san_pg")}
    if missing := [part for part, one in parts.items() if one is None]:
        raise UserError(f"the config has no part {missing[0]}; use one like configs/chain.py")
    for part, one in parts.items():
        config_fields.check(one, where=f"{part}.")


def stage(number: int, total: int, what: str, place: Path | str) -> None:
    """Prints which stage begins."""
    if jax.process_index() == 0:
        print(f"\n{number} of {total}: {what}, {place}", flush=True)


def draw_held_out(drawing: Mapping[str, Model], data: ConfigDict, sheet: Path) -> None:
    """Prints how near the textures of some models are to the true ones of held-out pairs, and writes a sheet of them.

    Args:
      drawing: name -> a model with a decoder.
      data: the part `data` of the generator's config; its first test set is used.
      sheet: the PNG file; the scores are written beside it, with the suffix .json.
    """
    pairs = common.open_scored(data, mode="san_pg")[0]
    scores, shown = texture_scores.compare(drawing, pairs, workers=data.workers)
    if jax.process_index() == 0:
        print(f"held-out pairs of {pairs.name}, {texture_scores.UNITS}\n{texture_scores.as_table(scores)}")
        contact_sheet.save(sheet, shown)
        files.write(sheet.with_suffix(".json"), json.dumps({"data": pairs.name} | scores, indent=2) + "\n")
        print(f"{sheet}: pictures, drawn and true textures", flush=True)


def with_data_of(workdir: Path, config: ConfigDict) -> ConfigDict:
    """The config of one training run with the data folders of the workdir."""
    config = ConfigDict(config.to_dict())
    config.data.data_dir, config.data.manual_dir = str(workdir / "data"), str(workdir / "release")
    return config


def link_release(manual_dir: str, release: Path, *, own: Sequence[Path]) -> None:
    """Makes a folder of links to the contents of `manual_dir`, except for folders that the chain writes itself.

    This keeps the textures of the release unchanged, and the textures of different generators apart.

    Args:
      manual_dir: folder of the release; "" if there is none.
      release: the folder to make.
      own: folders that are not linked, relative to `manual_dir`.

    Raises:
      UserError: `manual_dir` does not exist, or the links cannot be made.
    """

    def link(folder: Path) -> None:
        (release / folder).mkdir(parents=True, exist_ok=True)
        for entry in sorted((files.at_home(manual_dir) / folder).iterdir()):
            place = folder / entry.name
            if any(path.is_relative_to(place) for path in own):
                if place not in own:
                    link(place)
            else:
                if (release / place).is_symlink():  # it may be broken, if the release was moved
                    (release / place).unlink()
                os.symlink(entry.resolve(), release / place)

    try:
        release.mkdir(parents=True, exist_ok=True)
        if manual_dir:
            link(Path())
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; manual_dir must be the folder of a release, and {release} writable"
        ) from error


def write_training_textures(generator: Model, textures: DrawnTextures, *, sheet: Path, data: ConfigDict) -> None:
    """Generates the textures of a training set, and a sheet of some of them.

    Args:
      generator: draws them.
      textures: the set of pictures and the folder for their textures.
      sheet: the PNG file of the sheet.
      data: the part `data` of SAN's config.
    """
    source = common.open_source(textures.pictures, "train", data_dir=data.data_dir, manual_dir=data.manual_dir)
    pictures, folder = Pictures.of_source(source, split="train"), Path(data.manual_dir) / textures.folder
    pseudo_textures.write_textures(generator, pictures, folder)
    shown = pseudo_textures.sheet_of(generator, pictures, folder) if jax.process_index() == 0 else None
    if shown is not None:
        contact_sheet.save(sheet, shown)


if __name__ == "__main__":
    CONFIG = config_file.define("configs/chain.py", "Config of the chain; append :small for two CPU cores.")
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything that the chain writes.", required=True)
    common.run_command(lambda: run_chain(CONFIG.value, Path(WORKDIR.value)))
