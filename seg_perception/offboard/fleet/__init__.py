"""Many bags: one worker after the other, or many at once on Ray, and what came of all of them."""
