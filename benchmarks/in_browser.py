"""Runs an exported network in a browser by onnxruntime-web, and compares its features with those of the network.

    npm install --prefix=runs/web onnxruntime-web
    python -m benchmarks.in_browser --web=runs/web/node_modules/onnxruntime-web/dist

Opens a page in Debian's chromium (`make chromium`) that decodes a PNG file on a canvas of the network's size, gives its
pixels to the network with uint8 input, and the same picture, normalised, to the one with float32 input. Prints the
cosine similarity of each to the features that the network computes in Python, and the median time of ten calls.
"""

import argparse
import contextlib
import functools
import http.server
import io
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import san_jax
from san_jax.errors import UserError
from san_jax.runtimes import checks
from san_jax.runtimes.interface import INPUTS

SCRIPT = "ort.wasm.min.js"
CHROMIUM = "/usr/bin/chromium"
PAGE = """<!doctype html>
<script src="web/ort.wasm.min.js"></script>
<script>
const MEAN = [0.485, 0.456, 0.406], STD = [0.229, 0.224, 0.225];

async function pixels(address, height, width) {
  const picture = await createImageBitmap(await (await fetch(address)).blob());
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;  // RGBA
}

function tensor(rgba, height, width, input) {
  const places = height * width;
  const values = input === "uint8_nhwc" ? new Uint8Array(3 * places) : new Float32Array(3 * places);
  for (let place = 0; place < places; place++)
    for (let channel = 0; channel < 3; channel++) {
      const value = rgba[4 * place + channel];
      if (input === "uint8_nhwc") values[3 * place + channel] = value;
      else values[channel * places + place] = (value / 255 - MEAN[channel]) / STD[channel];
    }
  return input === "uint8_nhwc" ? new ort.Tensor("uint8", values, [1, height, width, 3])
                                : new ort.Tensor("float32", values, [1, 3, height, width]);
}

async function features(input, height, width, repeats) {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(input + ".onnx", {executionProviders: ["wasm"]});
  const images = tensor(await pixels("picture.png", height, width), height, width, input);
  const times = [];
  let feats;
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    feats = (await session.run({images})).feats.data;
    times.push(performance.now() - start);
  }
  return {feats: [...feats], milliseconds: times};
}
</script>
"""


def main() -> None:
    """Exports, opens the page, prints what it computed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--web", type=Path, required=True, help="the folder dist of the package onnxruntime-web")
    parser.add_argument("--checkpoint", default="rendered-small")
    flags = parser.parse_args()
    if not (flags.web / SCRIPT).is_file():
        parser.error(f"--web is {flags.web}, which holds no {SCRIPT}; give the folder dist of onnxruntime-web")
    try:
        model = san_jax.load(flags.checkpoint)
    except UserError as error:
        parser.error(str(error))
    size = dict(height=model.architecture.height, width=model.architecture.width)
    [picture] = checks.pictures(**size, count=1)
    [expected] = model.features([picture])
    with tempfile.TemporaryDirectory() as folder:
        write_site(Path(folder), flags.web, picture)
        for input in INPUTS:
            san_jax.export(model, Path(folder, f"{input}.onnx"), input=input)
        with served(Path(folder)) as address, sync_playwright() as playwright:
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
            page = browser.new_page()
            page.goto(address)
            for input in INPUTS:
                print(json.dumps({"input": input, **compared(page, input, expected, **size)}), flush=True)
            print(f"chromium {browser.version}")
            browser.close()


def write_site(folder: Path, web: Path, picture: np.ndarray) -> None:
    """Writes the page and a picture into a folder, beside a link to onnxruntime-web."""
    folder.joinpath("index.html").write_text(PAGE)
    folder.joinpath("web").symlink_to(web.absolute())
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    folder.joinpath("picture.png").write_bytes(content.getvalue())


def compared(page: Any, input: str, expected: np.ndarray, *, height: int, width: int) -> dict[str, float]:
    """What the page computes from one of the files, beside ours."""
    found = page.evaluate("given => features(...given)", [input, height, width, 10])
    feats = np.array(found["feats"])
    away = np.linalg.norm(feats - expected) / np.linalg.norm(expected)
    cosine = checks.cosines(feats[None], expected[None].astype(np.float64))[0]
    times = dict(milliseconds=float(np.median(found["milliseconds"])))
    return {"cosine": float(cosine), "share_of_norm": float(away), **times}


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Leaves the line out."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server of a folder, while the context lasts."""
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


if __name__ == "__main__":
    main()
