"""Metrics of dense detection that are right on any number of processes."""

from .mean_ap import DetectionMAP as DetectionMAP
