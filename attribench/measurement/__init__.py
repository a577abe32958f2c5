"""What methods are held against: truths, and the contract of the metrics that compare scores with them. Imports no torch."""

from attribench.measurement.metric import Metric
from attribench.measurement.truth import Retrained, Truth

__all__ = ["Metric", "Retrained", "Truth"]
