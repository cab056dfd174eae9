"""The documents of /api, from which its description in OpenAPI is made."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["About", "Classified", "Failed", "JobReport", "ModelFacts", "Prediction"]


class Failed(BaseModel):
    """A request that could not be answered."""

    error: str = Field(description="One sentence: what was expected, what came, and what to do next.")


class ModelFacts(BaseModel):
    """A version of a model."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    version: str
    classes: list[str] | None = Field(description="The names of the outputs, where they are known.")
    trained: bool | None = Field(description="False for initial weights; null if that is unknown.")
    takes_pictures: bool = Field(description="Whether it has a recipe, so that it can be given pictures.")
    input_shape: list[int | None] = Field(description="Of one sample; null for a free size.")
    engine: str = Field(description="What runs it.")
    whole_graph: bool = Field(description="Whether it is an ONNX graph that no layers express.")


class About(BaseModel):
    """The server."""

    version: str = Field(description="Of Diptych.")
    models: list[ModelFacts]
    uploads: bool = Field(description="Whether model files may be sent.")
    max_bytes: int = Field(description="The most bytes of a request.")
    max_pixels: int = Field(description="The most pixels of a picture.")


class Prediction(BaseModel):
    """What a model says of a picture; beside these there are all values by class."""

    model_config = ConfigDict(extra="allow")

    image: str
    label: str = Field(description="The class with the largest value.")


class Classified(BaseModel):
    """What `diptych predict --json` prints."""

    model: str
    weights: str = Field(description='"trained", "untrained" or "training unknown".')
    kind: str = Field(description='"probability" or "score".')
    classes: list[str]
    predictions: list[Prediction]
    remarks: list[str] = Field(description="What had to be decided in reading the picture.")


class JobReport(BaseModel):
    """How far long work has come."""

    id: str
    done: int
    total: int
    what: str


Document = dict[str, Any]
