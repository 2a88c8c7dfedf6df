"""Evaluation of losses per anchor, with values and gradients in one pass, by chunks or in one compiled kernel."""
