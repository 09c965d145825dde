"""The scorecard: what the policy would have done in runs where it gave no orders, against what happened. Pure."""
