"""Contexts: rows chosen, joined, repeated, tiled and moved, with every field that a context may hold."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch

from come_nav.core.errors import ShapeError
from come_nav.core.types import Context, ContextViews, OlderFrames, PointSet, ViewSource


def numbered(batch: int, *shape: int) -> torch.Tensor:
    """Values (batch, *shape) whose first index is their value."""
    return torch.arange(float(batch)).reshape(-1, *[1] * len(shape)).expand(batch, *shape).clone()


def full(batch: int, shared: int = 1) -> Context:
    """A context with every field; ``camera`` has ``shared`` rows."""
    return Context(
        numbered(batch, 2, 1, 4, 4),
        numbered(batch, 2, 3),
        numbered(batch, 2),
        absolute_pose_xyyaw=numbered(batch, 3),
        camera=numbered(shared, 4),
        T_base_camera=numbered(batch, 4, 4),
        points=PointSet(numbered(batch, 5, 3), numbered(batch, 5, 3), numbered(batch, 5, 2)),
        older_points=PointSet(numbered(batch, 6, 3), numbered(batch, 6, 3), numbered(batch, 6, 2)),
        older=OlderFrames(numbered(batch, 3, 1, 4, 4), numbered(batch, 3, 3), numbered(batch, 3), numbered(batch, 3)),
        views=ContextViews(
            *(numbered(batch, 3, 4, 4) for _ in range(3)),
            numbered(batch, 3),
            numbered(batch, 2, 4, 4),
            numbered(batch, 7),
            numbered(batch, 2, 4, 4),
        ),
    )


def tensors(part: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a context by the names of their fields; fails for a field that :func:`full` leaves out."""
    if not is_dataclass(part):
        assert part is not None, f"{name} is not filled in"
        return {name: part}
    return {
        path: tensor
        for own in fields(part)
        for path, tensor in tensors(getattr(part, own.name), f"{name}.{own.name}").items()
    }


def numbers(context: Context) -> dict[str, list[int]]:
    """The first value of every row, by field."""
    return {name: tensor.flatten(1)[:, 0].int().tolist() for name, tensor in tensors(context).items()}


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([1, 2])])
def test_rows_are_chosen_in_every_field_and_shared_ones_stay(index) -> None:
    chosen = numbers(full(4).rows(index))
    assert chosen.pop(".camera") == [0]
    assert len(chosen) == 22
    assert all(rows == [1, 2] for rows in chosen.values())
    assert all(rows == [0] for rows in numbers(full(1).rows(index)).values())  # one window for all candidates


def test_repeated_rows_lie_side_by_side_and_tiled_ones_behind_one_another() -> None:
    repeated, tiled = numbers(full(2).repeated(2)), numbers(full(2).tiled(2))
    assert repeated.pop(".camera") == tiled.pop(".camera") == [0]
    assert all(rows == [0, 0, 1, 1] for rows in repeated.values())
    assert all(rows == [0, 1, 0, 1] for rows in tiled.values())
    assert all(rows == [0, 0, 0] for rows in numbers(full(1).repeated(3)).values())
    assert all(rows == [0] for rows in numbers(full(1).tiled(3)).values())


def test_joined_contexts_are_the_rows_behind_one_another() -> None:
    one, two = full(3, 3), full(2, 2)
    joined = numbers(Context.joined([one, two]))
    assert all(rows == [0, 1, 2, 0, 1] for rows in joined.values())
    again = Context.joined([one.rows(slice(0, 1)), one.rows(slice(1, 3))])
    assert all(torch.equal(tensors(again)[name], own) for name, own in tensors(one).items())


def test_contexts_that_hold_other_fields_are_not_joined() -> None:
    bare = replace(full(1), points=None)
    with pytest.raises(ShapeError, match=r"must all have Context\.points or none of them; 1 have none"):
        Context.joined([full(1), bare])
    with pytest.raises(ShapeError, match=r"Context\.points"):
        Context.joined([bare, full(1)])
    assert Context.joined([bare, bare]).points is None


def test_expanding_copies_nothing() -> None:
    context = full(1)
    wide = tensors(context.expand(7))
    assert {tensor.shape[0] for tensor in wide.values()} == {7}
    assert all(wide[name].data_ptr() == own.data_ptr() for name, own in tensors(context).items())


def test_every_field_is_moved() -> None:
    moved = tensors(full(2).to("cpu", torch.float64))
    assert {tensor.dtype for tensor in moved.values()} == {torch.float64}
    assert {tensor.device.type for tensor in tensors(full(2).to("meta")).values()} == {"meta"}


def test_views_take_the_place_of_what_they_were_rendered_from() -> None:
    context = full(2)
    views = ContextViews(*(torch.full((2, 3, 4, 4), value) for value in (1.0, 2.0, 3.0)))
    seen = context.with_views(views)
    assert (seen.points, seen.older_points, seen.camera, seen.T_base_camera) == (None, None, None, None)
    shown = [seen.views.of(source) for source in (ViewSource.CONTEXT, ViewSource.LONGER, ViewSource.MEMORY)]
    assert [float(view.mean()) for view in shown if view is not None] == [1.0, 2.0, 3.0]
    assert seen.absolute_pose_xyyaw is context.absolute_pose_xyyaw


@pytest.mark.parametrize(
    ("field", "value"),
    [("absolute_pose_xyyaw", (1, 2)), ("camera", (1, 3)), ("T_base_camera", (1, 2, 4, 4))],
)
def test_shapes_that_do_not_fit_are_told(field, value) -> None:
    with pytest.raises(ShapeError, match=f"Context.{field}"):
        replace(full(1), **{field: torch.zeros(value)})
