"""How the files of a split are found: below folders, by their names or templates of names, and by the lines of lists."""
