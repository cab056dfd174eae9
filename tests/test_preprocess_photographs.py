"""A user takes the photographs that come with scikit-image."""

import socket

import numpy as np
import pytest

from diptych.datasets import photographs
from diptych.errors import UsageError
from diptych.preprocessing import named


def test_every_photograph_is_there_without_a_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    every = photographs.photographs()
    assert list(every) == list(photographs.NAMES)
    for name, picture in every.items():
        assert picture.dtype == np.uint8
        assert picture.shape[2:] in ((), (3,))
        text = photographs.NAMES[name]
        assert text.endswith(
            f"{'colour' if picture.ndim == 3 else 'grey'}, {picture.shape[0]} x {picture.shape[1]}"
        )
        assert picture.std() > 5
    batch = named("colour-32").apply_batch(every.values())
    assert batch.shape == (len(every), 3, 32, 32)


def test_an_unknown_photograph_names_the_nearest():
    with pytest.raises(UsageError, match=r"'astronout': did you mean 'astronaut'; known are astronaut"):
        photographs.photograph("astronout")
