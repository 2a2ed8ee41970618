"""A client over HTTP and JSON, with nothing but the standard library: slower than gRPC, and through any proxy."""

import base64
import http.client
import json
import urllib.error
import urllib.request

import numpy as np

from retinaface_tf.common.json_files import DictOf, parse_json
from retinaface_tf.integrations.serving.client import Client, ServingError

MAX_ANSWER = 1 << 28  # bytes


class RestClient(Client):
    """A detector behind TensorFlow Serving's REST port, 8501 as a rule.

    Args:
        address: str, "http://host:port", with or without a path before `/v1`.
        others: see `Client`.
    """

    def _send(self, signature, inputs, seconds):
        version = "" if self.version is None else f"/versions/{self.version}"
        url = f"{self.address.rstrip('/')}/v1/models/{self.model}{version}:predict"
        contents = [{"b64": base64.b64encode(content).decode("ascii")} for content in inputs["image_bytes"]]
        body = {"signature_name": signature, "inputs": {**inputs, "image_bytes": contents}}
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                outputs = parse_json(response.read(MAX_ANSWER), {"outputs": DictOf()}, "answer")["outputs"]
        except urllib.error.HTTPError as error:
            raise ServingError(f"{self.address}: HTTP {error.code}: {_reason(error)}") from None
        except TimeoutError:
            raise self._too_late() from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._too_late() from None
            raise self._unreachable(error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        except ValueError as error:
            raise ServingError(f"{self.address}: an answer that is no prediction ({error})") from None
        try:
            return {name: np.asarray(value) for name, value in outputs.items()}
        except ValueError:
            raise ServingError(f"{self.address}: an answer that is no prediction (lists of unequal lengths)") from None


def _reason(error):
    """The server's own words, in one line."""
    try:
        text = parse_json(error.read(MAX_ANSWER), {"error": str}, "answer")["error"]
    except (ValueError, OSError, http.client.HTTPException):
        text = error.reason
    return " ".join(str(text).split())[:300]
