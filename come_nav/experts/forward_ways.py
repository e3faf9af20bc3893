"""The ways in which networks can run, named without torch, because settings load without it."""

from typing import Literal

ForwardWay = Literal["eager", "graph", "compile"]
