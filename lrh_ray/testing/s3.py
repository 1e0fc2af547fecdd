"""A real S3 server on loopback, for tests of remote stores: moto's, from PyPI.

    with s3_server() as url:              # "s3://lrh-tests"
        create_store(f"{url}/store", ...)

It refuses `If-None-Match: *` on an existing object and `If-Match` with a stale tag, as S3 does; its tags are digests of
contents, as S3's are. Credentials and endpoint stand in the environment while the server runs, and child processes
inherit them.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from lrh_ray.errors import DependencyMissing

BUCKET = "lrh-tests"


@contextmanager
def s3_server() -> Iterator[str]:
    """URL of an empty bucket; the server ends with the context.

    Raises:
        DependencyMissing: moto's server or boto3 is not installed.
    """
    try:
        import boto3
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise DependencyMissing(
            "The S3 server for tests needs moto and boto3: `pip install 'moto[s3,server]' boto3`."
        ) from error
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with patch.dict(os.environ, settings):
            boto3.client("s3", endpoint_url=settings["AWS_ENDPOINT_URL"]).create_bucket(Bucket=BUCKET)
            yield f"s3://{BUCKET}"
    finally:
        server.stop()
