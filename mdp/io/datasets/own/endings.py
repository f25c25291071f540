"""The endings of names by which photos and label maps are found; what a file holds is looked at when it is read."""

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
LABELS = (".png", ".bmp", ".tif", ".tiff", ".mat", ".jpg", ".jpeg", ".gif", ".npy", ".webp", ".ppm", ".pgm")
# what counts only where no file with another ending has its stem
SECOND_PHOTOS = (".ppm",)
SECOND_LABELS = (".gif", ".npy", ".webp", ".ppm", ".pgm")
