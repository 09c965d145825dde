"""What the detection, and the published rules of other projects, conclude on recorded curves."""
