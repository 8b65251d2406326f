"""Reports for people: one HTML file with its images inside, readable without a network."""
