"""Building container images from the definitions that come along, and telling whether an image fits."""
