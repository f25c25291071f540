"""The endings of names by which photos and label maps are found; what a file holds is looked at when it is read."""

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABELS = (".png", ".bmp", ".tif", ".tiff", ".mat", ".jpg", ".jpeg")  # JPEG is refused when it is read
