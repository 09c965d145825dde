"""What people and replays decide about a run."""
