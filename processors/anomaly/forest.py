"""An isolation forest on context vectors.

What is near to normal in every respect is rated by its largest distance alone. Only what stands out, a few in a hundred, goes
through the forest as well, which knows what stands out together. scikit-learn grows the trees; they are walked here, all at
once: its own way costs 5 ms a call even for one vector.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .detector import peaks
from .features import Reals, Values

_TREES: Final = 100
_SAMPLES: Final = 256
#: asinh of three standard deviations
_STANDS_OUT: Final = 1.8184
#: how much the forest can add to a rating, twice this: as much as a distance times e
_WEIGHT: Final = 0.5
_WALKED_AT_ONCE: Final = 2048
_EULER: Final = 0.5772156649


class ForestDetector:
    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, vectors: Values) -> None:
        from sklearn.ensemble import IsolationForest

        forest = IsolationForest(n_estimators=_TREES, max_samples=min(_SAMPLES, len(vectors)), random_state=self._seed)
        forest.fit(vectors)
        self._take(forest)
        depths = self._isolation(vectors[:_WALKED_AT_ONCE])
        self._usual, highest = np.quantile(depths, (0.5, 0.999))
        self._scale = max(float(highest - self._usual), 1e-3)

    def rate(self, vectors: Values) -> Reals:
        rating = peaks(vectors)
        standing_out = np.flatnonzero(rating > _STANDS_OUT)
        for begin in range(0, len(standing_out), _WALKED_AT_ONCE):
            rows = standing_out[begin : begin + _WALKED_AT_ONCE]
            isolated = (self._isolation(vectors[rows]) - self._usual) / self._scale
            rating[rows] += _WEIGHT * np.clip(isolated, 0, 2)
        return np.sinh(rating)

    def _take(self, forest: Any) -> None:
        """The trees as columns of all their nodes. A leaf is its own child."""
        features, thresholds, lengths, children, self._roots = [], [], [], [], []
        first = 0
        for estimator in forest.estimators_:
            tree = estimator.tree_
            count = tree.node_count
            own = np.arange(count)
            leaf = tree.children_left < 0
            self._roots.append(first)
            features.append(np.where(leaf, 0, tree.feature))
            thresholds.append(tree.threshold)
            sides = (np.where(leaf, own, tree.children_left), np.where(leaf, own, tree.children_right))
            children.append(np.stack(sides, axis=1) + first)
            lengths.append(_depths(tree) + _average_path(tree.n_node_samples))
            first += count
        self._features = np.concatenate(features).astype(np.int32)
        self._thresholds = np.concatenate(thresholds)
        self._children = np.concatenate(children).astype(np.int32).reshape(-1)
        self._lengths = np.concatenate(lengths)
        self._depth = max(estimator.tree_.max_depth for estimator in forest.estimators_)
        self._path = max(float(_average_path(np.array([forest.max_samples_]))[0]), 1.0)

    def _isolation(self, vectors: Values) -> Reals:
        """(n,) the paper's anomaly score, 0 to 1."""
        rows = np.arange(len(vectors))[:, None]
        at = np.broadcast_to(np.array(self._roots, np.int32), (len(vectors), len(self._roots)))
        for _ in range(self._depth):
            right = vectors[rows, self._features[at]] > self._thresholds[at]
            at = self._children[2 * at + right]
        found: Reals = 2.0 ** (-self._lengths[at].mean(axis=1) / self._path)
        return found


def _depths(tree: Any) -> Reals:
    """(nodes,) how many splits are above each. Children come after their parents."""
    depths = np.zeros(tree.node_count)
    for node in range(tree.node_count):
        for child in (tree.children_left[node], tree.children_right[node]):
            if child >= 0:
                depths[child] = depths[node] + 1
    return depths


def _average_path(samples: Any) -> Reals:
    """(n,) of an unsuccessful search in a tree of so many: what a leaf that holds several stands for (Liu et al. 2008)."""
    samples = np.asarray(samples, np.float64)
    many = np.maximum(samples, 3)
    paths = 2 * (np.log(many - 1) + _EULER) - 2 * (many - 1) / many
    found: Reals = np.where(samples <= 1, 0.0, np.where(samples == 2, 1.0, paths))
    return found
