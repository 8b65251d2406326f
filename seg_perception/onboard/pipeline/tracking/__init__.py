"""What the tracker is made of: motion of boxes and similarity of boxes."""
