"""Reference scores of test sets, without an encoder: chance, and colour histograms compared by chi-square distance.

    san-jax reference-scores --data=cuhk03/labeled,cuhk03/detected --data_dir=data
    san-jax reference-scores --data=cuhk03/labeled_classic:0 --metric=cuhk03 --output=references.json
"""

import json
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from san_jax import devices, files
from san_jax.commands import common
from san_jax.scoring import evaluation, references


def write_scores(
    data: ConfigDict, *, metric: str, workers: int | None, output: Path | None, same_camera: str = "remove"
) -> None:
    """Prints a table and, if `output` is given, writes the scores there as fractions.

    Args:
      data: `test`, `data_dir`, `manual_dir` and `pattern` as in configs/base.py; `test` names the sets to score.
      metric: one of `evaluation.METRICS`.
      workers: threads that decode; None = one for each core, 0 = no threads.
      same_camera: as in a `RetrievalSet`.
      output: a JSON file: {"metric": ..., "sets": {NAME: {"chance": {...}, "colour histogram": {...}}},
        "queries_without_match": {NAME: ...}}.

    Raises:
      UserError: there is no such data set, it cannot be read, or the file cannot be written.
    """
    if output:
        files.check_place(output)  # before anything is computed
    test_sets = common.open_test_sets(data, same_camera=same_camera)
    scores = references.evaluate(test_sets, mesh=devices.make_mesh(), metric=metric, workers=workers)
    if jax.process_index():
        return
    rows = {f"{name} {reference}": numbers for name, by in scores.items() for reference, numbers in by.items()}
    lines = [f"{metric} metric, in percent", evaluation.as_table(rows), *evaluation.remarks(test_sets)]
    print("\n".join(lines), flush=True)
    if output:
        unmatched = {test.name: evaluation.queries_without_match(test) for test in test_sets}
        text = json.dumps({"metric": metric, "sets": scores, "queries_without_match": unmatched}, indent=2)
        files.write(output, text + "\n")


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    names = flags.DEFINE_string("data", None, "Test sets, separated by commas.", required=True)
    data_dir = flags.DEFINE_string("data_dir", "data", "Folder of the prepared data sets.")
    manual_dir = flags.DEFINE_string("manual_dir", "", "Folder of the release; needed only to prepare a data set.")
    pattern = flags.DEFINE_string("pattern", "", "Of the names of a folder's pictures, see docs/data.md.")
    metric = flags.DEFINE_enum("metric", "market1501", evaluation.METRICS, "Protocol; cuhk03 is single-gallery-shot.")
    same_camera = flags.DEFINE_enum(
        "same_camera",
        "remove",
        evaluation.SAME_CAMERA,
        "Gallery pictures with the query's pid and camid: remove them, or keep all but the query itself.",
    )
    workers = flags.DEFINE_integer(
        "workers", None, "Threads that decode; 0 = none. Default: one for each core.", lower_bound=0
    )
    output = flags.DEFINE_string("output", None, "JSON file for the scores.")

    def run() -> None:
        test = ",".join(common.names(names.value, field="--data"))
        places = dict(data_dir=data_dir.value, manual_dir=manual_dir.value, pattern=pattern.value)
        data = ConfigDict(dict(test=test, **places))
        path = Path(output.value) if output.value else None
        options = dict(metric=metric.value, same_camera=same_camera.value, workers=workers.value, output=path)
        write_scores(data, **options)

    common.run_command(run, module=__name__, remote=("data_dir",))


if __name__ == "__main__":
    main()
