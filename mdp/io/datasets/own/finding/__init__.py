"""How the files of a split are found: below folders, by their names or templates of them, and by lines of lists."""
