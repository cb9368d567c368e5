"""A real S3 server for tests: moto's, on a free port of this machine."""

import itertools
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

_NUMBERS = itertools.count()


@contextmanager
def object_storage() -> Iterator[Mapping[str, str]]:
    """Start the server; yields the environment that leads to it, and sets it for this process meanwhile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the server's own packages deprecate one another
        server_module = pytest.importorskip("moto.server", reason="moto is not installed: pip install moto[server,s3]")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield settings
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        server.stop()


def client() -> Any:
    """Amazon's own client, which knows nothing of ours."""
    boto3 = pytest.importorskip("boto3")
    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")


def new_bucket() -> str:
    """A new bucket; returns its name."""
    name = f"nest-{next(_NUMBERS)}"
    client().create_bucket(Bucket=name)
    return name


def keys(bucket: str) -> set[str]:
    """Every key in a bucket."""
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {found["Key"] for page in pages for found in page.get("Contents", ())}
