"""Verdicts on recorded curves: of the detection, and of the published rules of other projects."""
