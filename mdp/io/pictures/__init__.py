"""Charts, sheets of images and pieces of HTML."""
