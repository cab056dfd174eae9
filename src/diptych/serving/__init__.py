"""The server: models over HTTP, by the Open Inference Protocol v2 and by the verbs of Diptych.

- `repository` finds, loads and unloads models; `served` is one that is ready; `batching` joins requests.
- `protocol` is /v2 (https://github.com/kserve/open-inference-protocol), with Triton's extensions for binary tensors,
  statistics, the repository and classification; `tensors` reads and writes what travels.
- `api` is /api, the verbs, described in OpenAPI; `site` is the page in the browser.
- `application` brings them together behind `guard`, which refuses what a stranger's page or machine asks for.

The bytes of an answer are those that `diptych.predict` gives: engines compute each sample alone, and requests to a
model that mixes the samples of a batch are never joined.
"""
