"""An object store on this machine that speaks as much of S3 as it takes to list a bucket and read from it."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.corpus.loopback import Loopback


class Bucket(Loopback):
    """Serves `objects` by their keys in whichever bucket is asked for."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        super().__init__()

    def environment(self) -> dict[str, str]:
        """What AWS's tools read, so that they come here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def listed(self, prefix: str) -> bytes:
        keys = [key for key in sorted(self.objects) if key.startswith(prefix)]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size></Contents>" for key in keys
        )
        return (
            f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>false</IsTruncated><KeyCount>{len(keys)}</KeyCount>{contents}</ListBucketResult>"
        ).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                address = urlsplit(self.path)
                key = unquote(address.path).lstrip("/").partition("/")[2]
                asked = parse_qs(address.query)
                content = bucket.objects.get(key)
                if "list-type" in asked:
                    self._answer(200, bucket.listed(asked.get("prefix", [""])[0]))
                elif content is None:
                    self._answer(404, b"")
                elif span := self.headers.get("range"):
                    first, _, last = span.removeprefix("bytes=").partition("-")
                    stop = min(int(last) + 1, len(content))
                    shown = {"Content-Range": f"bytes {first}-{stop - 1}/{len(content)}"}
                    self._answer(206, content[int(first) : stop], shown)
                else:
                    self._answer(200, content)

            do_HEAD = do_GET

            def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler
