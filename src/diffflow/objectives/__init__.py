"""What each player minimises. One file an objective; the words they share are in `objective.py`."""
