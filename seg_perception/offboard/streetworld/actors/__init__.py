"""What moves or stands in the street, as meshes: one file per kind."""
