"""All of SAN by one command: texture generator, pseudo textures, SAN, baseline, comparison; `make demo` is one.

    python -m san_jax.experiments.chain --config=configs/chain.py:small --workdir=runs/chain

leaves in the workdir:

    san_pg/ san/ baseline/    runs, as of train.py
    data/                     the prepared data sets
    release/                  links to what manual_dir holds, and the drawn textures
    textures.png              some of them
    scores.json ranked.png    what comparison.py says of the runs

Every stage can be killed; the same command goes on where it was.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

import tfds_builders
from san_jax import commands, contact_sheet, devices, pseudo_textures
from san_jax.errors import UserError
from san_jax.experiments import comparison
from san_jax.pseudo_textures import Generator, Pictures
from san_jax.training import checkpoints
from tfds_builders import Drawn


def run_chain(config: ConfigDict, workdir: Path) -> None:
    """Trains, draws, trains, compares.

    Args:
      config: as of configs/chain.py; `data.data_dir` and `data.manual_dir` of its parts become folders of the workdir.
      workdir: of the chain.

    Raises:
      UserError: as of any stage; or no training set of `san` has textures to draw.
    """
    san, _ = prepare(config, workdir, total=5)
    baseline = ConfigDict(san.to_dict())
    baseline.mode, baseline.batch.pit_pictures = "baseline", 0
    stage(3, 5, "SAN with these textures", workdir / "san")
    commands.train(san, workdir / "san")
    stage(4, 5, "baseline", workdir / "baseline")
    commands.train(baseline, workdir / "baseline")
    stage(5, 5, "comparison", workdir)
    comparison.main(workdir)


def prepare(config: ConfigDict, workdir: Path, *, total: int) -> tuple[ConfigDict, str]:
    """The first two stages: trains the generator and draws the textures of SAN's training sets.

    Args:
      config: as of `run_chain`.
      workdir: of the chain.
      total: number of stages, for the eye.

    Returns:
      SAN's config on the data of the workdir, and the names of the sets whose pictures were drawn from.

    Raises:
      UserError: as of any stage; or no training set of `san` has textures to draw.
    """
    san, san_pg = (with_data_of(workdir, config[part]) for part in ("san", "san_pg"))
    names = commands.names(san.data.train, field="san.data.train")
    drawn = [found for name in names if (found := tfds_builders.drawn_textures(name))]
    if not drawn:
        raise UserError(
            f"san.data.train {', '.join(names)} needs no drawn textures; give a set that does, like "
            "synthetic_reid/small_pseudo or cuhk03/labeled_texture, or train on it by train.py"
        )
    release = workdir / "release"
    if jax.process_index() == 0:
        link_release(config.manual_dir, release, own=[textures.folder for textures in drawn])
    multihost_utils.sync_global_devices("release")
    stage(1, total, "texture generator", workdir / "san_pg")
    commands.train(san_pg, workdir / "san_pg")
    stage(2, total, "textures", release)
    for textures in drawn:
        draw(textures, workdir, data=san.data, mesh=devices.make_mesh())
    return san, ",".join(textures.pictures for textures in drawn)


def stage(number: int, total: int, what: str, folder: Path) -> None:
    """Says what begins."""
    if jax.process_index() == 0:
        print(f"\n{number} of {total}: {what}, {folder}", flush=True)


def with_data_of(workdir: Path, config: ConfigDict) -> ConfigDict:
    """The config of one training, on data of the workdir."""
    config = ConfigDict(config.to_dict())
    config.data.data_dir, config.data.manual_dir = str(workdir / "data"), str(workdir / "release")
    return config


def link_release(manual_dir: str, release: Path, *, own: Sequence[Path]) -> None:
    """Makes a folder like `manual_dir`, of links, but for some folders inside it that are the chain's own.

    The release's own textures stay what they are, and those of two generators never mix.

    Args:
      manual_dir: of the release; "" if there is none.
      release: the folder to be.
      own: relative paths of what is left out.

    Raises:
      UserError: there is no such manual_dir, or the links cannot be made.
    """

    def link(folder: Path) -> None:
        (release / folder).mkdir(parents=True, exist_ok=True)
        for entry in sorted(Path(manual_dir, folder).expanduser().iterdir()):
            place = folder / entry.name
            if any(path.is_relative_to(place) for path in own):
                if place not in own:
                    link(place)
            else:
                if (release / place).is_symlink():  # the release may have moved
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


def draw(textures: Drawn, workdir: Path, *, data: ConfigDict, mesh: Mesh) -> None:
    """Draws the textures of a set's training pictures by the generator's best state, and a sheet of some."""
    generator = Generator.restore(checkpoints.find(workdir / "san_pg", best=True), mesh)
    source = tfds_builders.open_source(
        textures.pictures, "train", data_dir=data.data_dir, manual_dir=data.manual_dir
    )
    pictures, folder = Pictures.of_source(source, split="train"), Path(data.manual_dir) / textures.folder
    pseudo_textures.write_textures(generator, pictures, folder)
    sheet = pseudo_textures.sheet_of(generator, pictures, folder) if jax.process_index() == 0 else None
    if sheet is not None:
        contact_sheet.save(workdir / "textures.png", sheet)


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", "configs/chain.py", "What to train; :small for two CPU cores.")
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of everything that the chain leaves behind.", required=True)
    commands.run(lambda: run_chain(CONFIG.value, Path(WORKDIR.value)))
