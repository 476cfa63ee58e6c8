"""Replay: recorded text is taken as what the target says, under given step costs."""
