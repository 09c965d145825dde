"""Decisions about a run by people and by replays."""
