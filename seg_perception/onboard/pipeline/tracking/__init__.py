"""What the tracker is made of: motion of boxes, likeness of boxes, numbers."""
