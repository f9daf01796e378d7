"""``anomaly``: how odd each span is, compared with what is normal for its kind.

A span's key is its service, kind, port, protocol and operation (:mod:`.keys`). Per key the values of its features
(:mod:`.features`) are kept as histograms of their logarithms, and what is normal is a few quantiles of these, shrunk towards
those of the service, the protocol and everything while a key is young (:mod:`.baselines`). A span's signed distances from normal
are its context vector, which a detector (:mod:`.detector`) makes one number of; how often normal spans of the service have such a
number is the score (:mod:`.calibration`). :mod:`.model` puts these together; :mod:`.processor` runs it in a pipeline,
:mod:`.offline` on recorded traces, where the shape of whole traces counts as well (:mod:`.structure`).
"""
