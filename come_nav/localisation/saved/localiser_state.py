"""A localiser's graph, closures and vocabulary as plain arrays; its key frames' views are kept beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.errors import ShapeError
from come_nav.core.geometry import se2, se3
from come_nav.localisation.features import extract_features
from come_nav.localisation.keyframe_map import LocaliserSettings, VisualKeyframe
from come_nav.localisation.localiser import VisualLocaliser
from come_nav.localisation.pose_graph import PoseGraph

GRAPH = "graph."
VOCABULARY = "vocabulary."


def localiser_state(localiser: VisualLocaliser, T_first_odom_xyyaw: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return graph, closures and vocabulary of a localiser with key frames, in the odom of the present.

    Map and odom are one at the newest key frame. ``T_first_odom_xyyaw`` (3,) is where the present odom lies in the one
    that the localiser was told poses in.
    """
    keyframes, graph = localiser.keyframes, localiser.map.graph.state()
    T_map_odom = se2.compose(localiser.map.correction_xyyaw(len(localiser) - 1), T_first_odom_xyyaw)
    T_odom_first = se3.transform_from_xyyaw(se2.inverse(T_first_odom_xyyaw))
    return {
        "T_odom_base": T_odom_first @ np.stack([keyframe.T_odom_base for keyframe in keyframes]),
        "closures": np.array(localiser.closures, np.int64).reshape(-1, 2),
        **{GRAPH + name: values for name, values in graph.items()},
        GRAPH + "poses_xyyaw": se2.relative(T_map_odom[None], graph["poses_xyyaw"]),
        **{VOCABULARY + name: values for name, values in localiser.map.places.vocabulary().items()},
    }


def restored_localiser(
    state: Mapping[str, NDArray[Any]], keyframes: Sequence[VisualKeyframe], config: LocaliserSettings, seed: int = 0
) -> VisualLocaliser:
    """Return the localiser of :func:`localiser_state`, with its key frames.

    Raises:
        ShapeError: for arrays that do not agree, or features of another kind than the settings find.
    """
    graph = PoseGraph.restored(_part(state, GRAPH), config.graph)
    if len(graph) != len(keyframes):
        raise ShapeError(f"a graph of {len(graph)} key frames needs as many views, got {len(keyframes)}")
    kinds = {keyframe.view.features.kind for keyframe in keyframes}
    own = extract_features(np.zeros((64, 64), np.uint8), config.features).kind
    if kinds - {own}:
        raise ShapeError(f"saved features are of kind '{sorted(kinds)[0]}', the settings find '{own}'")
    closures = array_of(state, "closures")
    check_shape("closures", closures, "C 2")
    localiser = VisualLocaliser(config, seed)
    localiser.map.graph = graph
    localiser.map.keyframes.extend(keyframes)
    localiser.map.places.restore(_part(state, VOCABULARY), [keyframe.view.features for keyframe in keyframes])
    localiser.closures = [(int(first), int(second)) for first, second in closures]
    localiser.map.make_room()
    return localiser


def array_of(state: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """Return an array of a saved state; raise ShapeError where it is missing."""
    if name not in state:
        raise ShapeError(f"saved key frames need the array {name}")
    return state[name]


def _part(state: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in state.items() if name.startswith(prefix)}
