"""Named array shapes that only the analyses use; `lrh_ray.layouts` holds the rest.

Axis letters beyond those of `lrh_ray.layouts`:

    P  populations (distinct sets of rows that label columns are defined on)
    L  penalties tried for every label column
    K  probes: column x penalty, probe j = column j // L with penalty j % L
    S  documents of a held-out set
    B  bootstrap or permutation draws

A *population* is a set of rows. A concept that only some documents carry has its own, and so has a run that leaves
attention sinks out; columns with the same rows share one population, and with it one Gram matrix and one
eigendecomposition. Three arrays say all of it: `labels` [N, C], `populations` [C] (the population of each column) and
`members` [N, P] (which rows belong to each population). Typically P is 1 to 4.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped

Members = Bool[np.ndarray, "rows population"]
"""True where a row belongs to a population: the 0/1 weights of the fits."""

KeptRows = Shaped[np.ndarray, "kept feature"]

ColumnInts = Int64[np.ndarray, "column"]
ColumnSums = Float64[np.ndarray, "feature column"]

PopulationCounts = Int64[np.ndarray, "population"]
PopulationMeans = Float64[np.ndarray, "population feature"]
PopulationGrams = Float64[np.ndarray, "population feature feature"]

Penalties = Float64[np.ndarray, "column penalty"]
"""Absolute penalties of every label column."""

ProbeInts = Int64[np.ndarray, "probe"]
ProbeMask = Bool[np.ndarray, "probe"]
ProbeFloats = Float64[np.ndarray, "probe"]
ProbeWeights = Float64[np.ndarray, "feature probe"]
ProbeScores = Float64[np.ndarray, "rows probe"]

Augmented = Float[np.ndarray, "rows feature_plus_1"]
"""Shifted rows with a last column of ones, x~ = [x - shift, 1]; float64, or float32 where speed was asked for."""

AugmentedGrams = Float64[np.ndarray, "population feature_plus_1 feature_plus_1"]
AugmentedColumns = Float64[np.ndarray, "feature_plus_1 column"]
AugmentedProbes = Float64[np.ndarray, "feature_plus_1 probe"]
"""Coefficients or gradients of probes; the last row belongs to the intercept."""

Documents = Int64[np.ndarray, "rows"]
"""Index of each row's document, 0 <= index < number of documents."""

Classes = Int64[np.ndarray, "rows"]
"""Class of each row, 0 <= class < number of classes."""

DocumentWeights = Float64[np.ndarray, "draw document"]
"""How often each draw holds each document; one row of ones is the data as they are."""

Draws = Float64[np.ndarray, "draw probe"]
LogPosteriors = Float64[np.ndarray, "rows class"]
Norms = Float[np.ndarray, "rows"]
Histogram = Int64[np.ndarray, "bin"]

GroupIndex = Int64[np.ndarray, "rows"]
"""Group of each row, 0 <= index < number of groups: a fold, a part of the documents."""

RowWeights = Float64[np.ndarray, "rows"]
GroupFloats = Float64[np.ndarray, "group"]
BothFeatures = Float64[np.ndarray, "both"]
"""Features of x, then those of y."""

JointGrams = Float64[np.ndarray, "group joint joint"]
JointGram = Float64[np.ndarray, "joint joint"]
"""Sums of z z^T with z = [x, y, |x|^2, |y|^2, 1]."""

ContextRows = Float64[np.ndarray, "context feature"]
"""Rows that come before others, perhaps of another document."""

Weights = Float64[np.ndarray, "feature direction"]
OtherWeights = Float64[np.ndarray, "other_feature direction"]
Targets = Float64[np.ndarray, "target"]
Values = Float64[np.ndarray, "value"]
Indices = Int64[np.ndarray, "index"]
Square = Float64[np.ndarray, "feature feature"]

Configurations = Int64[np.ndarray, "configuration concept"]
LogProbabilities = Float64[np.ndarray, "configuration"]
Contexts = Int64[np.ndarray, "rows position"]
Emissions = Float64[np.ndarray, "position configuration token"]
NextEmissions = Float64[np.ndarray, "configuration next_token"]

RowGram = Float64[np.ndarray, "rows rows"]
"""Inner products of rows."""

FitRows = Float64[np.ndarray, "fit rows"]
FitFloats = Float64[np.ndarray, "fit"]

PairInts = Int64[np.ndarray, "pair"]
ConceptFloats = Float64[np.ndarray, "concept"]
ConceptMask = Bool[np.ndarray, "concept"]
ConceptMatrix = Float64[np.ndarray, "concept concept"]
NullDraws = Float64[np.ndarray, "draw test"]
TestMask = Bool[np.ndarray, "test"]
Bits = Int64[np.ndarray, "configuration bit"]

Centres = Float64[np.ndarray, "class dimension"]
"""One point of the unit sphere for every class."""

ClassInts = Int64[np.ndarray, "class"]
ClassFloats = Float64[np.ndarray, "class"]
ClassDirections = Float64[np.ndarray, "class direction"]
PenaltyInts = Int64[np.ndarray, "penalty"]
PenaltyFloats = Float64[np.ndarray, "penalty"]
PenaltyMask = Bool[np.ndarray, "penalty"]
PenaltyColumns = Float64[np.ndarray, "component penalty"]
"""All coefficients of one penalty laid end to end, one column per penalty."""

ClassCoefficients = Float64[np.ndarray, "feature_plus_1 penalty class"]
ClassSquares = Float64[np.ndarray, "penalty class class"]

DocumentInts = Int64[np.ndarray, "document"]
PortionProbes = Float64[np.ndarray, "portion probe"]
RowPortions = Int64[np.ndarray, "rows"]
"""Portion of the documents that each row belongs to, 0 <= index < number of portions."""

GroupScores = Float64[np.ndarray, "group feature_plus_1 target"]
GroupTargets = Float64[np.ndarray, "group target"]

ConceptRows = Float64[np.ndarray, "concept feature"]
"""A direction of each concept, in the coordinates of rows."""

TokenRows = Shaped[np.ndarray, "token feature"]
"""The unembedding of a vocabulary, of any float type."""

OtherRows = Float64[np.ndarray, "other_rows feature"]
TokenScores = Float64[np.ndarray, "token concept"]
PairFloats = Float64[np.ndarray, "pair"]
PairRows = Float64[np.ndarray, "pair feature"]
PairGram = Float64[np.ndarray, "pair pair"]
"""Inner products of the differences of word pairs."""

DoseChanges = Float64[np.ndarray, "dose pair"]
