"""What the tracker is made of: motion of boxes, similarity of boxes, numbers."""
