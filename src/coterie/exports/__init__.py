"""Trained teams for other programs: ONNX, StableHLO, NumPy, and a page that plays."""
