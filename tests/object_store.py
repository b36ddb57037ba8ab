"""An S3 server on this machine, in threads of the test process, and a bucket in it."""

import functools
import os
import uuid

import boto3
from moto.server import ThreadedMotoServer

from san_jax import remote

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}


@functools.cache
def endpoint() -> str:
    """The server's address; it is started by the first call and ends with the process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def new_bucket(monkeypatch, cache) -> str:
    """The address of a new bucket, which this process and those that it starts reach, with copies in this cache."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint())
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")  # those of the user
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(remote.CACHE, str(cache))
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


def variables() -> dict[str, str]:
    """Those that `new_bucket` has set, for commands in copies of a process that was started before."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name == remote.CACHE}


def put_folder(folder, address) -> None:
    """Copies all files of a local folder, as `aws s3 sync` would."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    remote.upload(folder, names, address)


def get_folder(address, folder):
    """Copies all objects of an address to a local folder, and returns that."""
    remote.download(address, remote.listing(address), folder)
    return folder
