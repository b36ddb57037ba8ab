"""Times the preparation of the field's data sets, from stand-ins for their releases at their true size.

    python -m benchmarks.builders --out=runs/builders

The stand-ins have the file names and numbers of the releases; their pictures are bands in the colours of a person, of
128 x 64 pixels, one picture for each person and camera. Writes builders.json with time, peak memory and disk of
`python -m tfds_builders NAME`, and leaves the prepared sets in OUT/data.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.case import describe_cpu, new_folder

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import field_releases

FOLDERS = {  # folder of the release, and the names of its pictures
    "market1501": ("Market-1501-v15.09.15", field_releases.market1501),
    "msmt17": ("MSMT17_V1", field_releases.msmt17_pictures),
    "dukemtmc_reid": ("DukeMTMC-reID", field_releases.dukemtmc_reid),
    "occluded_duke": ("Occluded_Duke", field_releases.occluded_duke),
    "cuhk03_np": ("cuhk03-np", lambda: field_releases.cuhk03_np("labeled")),
    "partial_reid": ("Partial_REID", field_releases.partial_reid),
    "partial_ilids": ("PartialiLIDS", field_releases.partial_ilids),
    "viper": ("VIPeR", field_releases.viper),
}
LABELS = re.compile(r"(-?\d+)(?:_c(\d))?")  # pid and camera at the beginning of a file's name


def main() -> None:
    """Writes the stand-ins, prepares each set in a process of its own, writes builders.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=new_folder, default="runs/builders")
    parser.add_argument("--name", action="append", choices=list(FOLDERS), help="default: all")
    flags = parser.parse_args()
    report = {"date": time.strftime("%Y-%m-%d"), "cpu": describe_cpu(), "sets": {}}
    for name in flags.name or FOLDERS:
        write_release(flags.out / "release", name)
        report["sets"][name] = measure(name, flags.out)
        print(name, report["sets"][name], flush=True)
        (flags.out / "builders.json").write_text(json.dumps(report, indent=2) + "\n")


def write_release(release: Path, name: str) -> None:
    """Writes a stand-in; pictures of one person by one camera are links to one file."""
    folder, names = FOLDERS[name]
    if (release / folder).exists():
        return
    (release / "pictures").mkdir(parents=True, exist_ok=True)
    if name == "msmt17":
        field_releases.write_msmt17(release / folder, version="v1")
    for place in names():
        path = release / folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():  # two lists of MSMT17 name some pictures alike
            continue
        if path.suffix in (".jpg", ".png", ".bmp"):
            pid, camera = LABELS.match(path.name).groups(default="0")
            path.symlink_to(os.path.relpath(picture(release / "pictures", int(pid), int(camera)), path.parent))


def picture(folder: Path, pid: int, camera: int) -> Path:
    """A JPEG of four bands in the colours of a person, as bright as the camera makes it."""
    path = folder / f"{pid}_{camera}.jpg"
    if not path.exists():
        bands = np.random.default_rng(pid + 2).uniform(20, 200, (4, 1, 3)) * (0.7 + 0.05 * camera)
        noise = np.random.default_rng((pid + 2, camera)).normal(0, 12, (128, 64, 3))
        Image.fromarray(np.clip(np.repeat(bands, 32, axis=0) + noise, 0, 255).astype(np.uint8)).save(path)
    return path


def measure(name: str, out: Path) -> dict[str, float]:
    """Time in seconds, peak memory and disk in MB of the preparation of a set, and its number of pictures."""
    words = [sys.executable, "-m", "tfds_builders", name, f"--manual_dir={out}/release", f"--data_dir={out}/data"]
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        sys.exit(f"{name} could not be prepared")
    [place] = re.findall(r" is in (.*) \(", said)
    return {
        "pictures": sum(int(line.split()[1]) for line in said.splitlines()[2:]),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(usage.ru_maxrss / 1000),
        "disk_mb": round(sum(path.stat().st_size for path in Path(place).iterdir()) / 1e6),
    }


if __name__ == "__main__":
    main()
