"""`mdp export`: weights for other libraries, checked by loading them back."""
